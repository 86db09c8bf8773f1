//! Load generator and checks of a running stack. Drives services by socket and process; links none of them.

pub mod logic;
