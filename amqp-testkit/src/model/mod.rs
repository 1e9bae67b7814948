//! x
pub struct ModelBroker;
