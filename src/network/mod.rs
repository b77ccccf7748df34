//! Communication behind one narrow interface: the measured tables where they reach, an
//! alpha-beta continuation beyond. The calibrated network layer will replace the inside.
