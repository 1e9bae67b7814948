//! What an idle connection costs.
