//! What every statement needs: errors, the prefix of the tables, columns, the time.

pub(crate) mod columns;
pub(crate) mod error;
pub(crate) mod table_prefix;
pub(crate) mod writing;
