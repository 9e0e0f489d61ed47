//! The payloads of the stories, as CAP's documentation tells them. Property names are those of a .NET service.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeductQty {
    pub(crate) order_id: i64,
    pub(crate) qty: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct QtyDeducted {
    pub(crate) order_id: i64,
    pub(crate) is_success: bool,
}

/// The event of the test vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct OrderCreated {
    pub(crate) order_id: i64,
}
