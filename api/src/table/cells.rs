//! What cells of many kinds have in common.
