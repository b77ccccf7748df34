use disagg::network::{A2aKind, A2aShape, AfdShape, Comm};
