//! What every statement needs: errors, the encoding of texts, the schema's name, columns, the driver's buffers.

pub(crate) mod columns;
pub(crate) mod driver_buffers;
pub(crate) mod encoding;
pub(crate) mod error;
pub(crate) mod schema_name;
pub(crate) mod writing;
