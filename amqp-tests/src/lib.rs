//! Tests of the whole stand in `tests/`; this library is empty.
