//! The bytes of a table.

use std::sync::Arc;

/// Bytes of a section, mapped or owned.
pub type Section = Arc<dyn AsRef<[u8]> + Send + Sync>;
