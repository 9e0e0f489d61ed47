//! The SQL that the pages give to operators runs, and finds what it is said to find.

use std::path::Path;
use std::sync::Arc;

use cap_core::message::{Headers, Message};
use cap_core::storage::NewOutgoing;

use crate::support::{Database, outgoing};

/// The statements of a page's blocks of SQL, for the schema of a test.
fn statements(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let all: String = blocks.collect();
    let ours = all.replace(" cap_rs.", " {s}.").replace(" cap.", " {s}.");
    ours.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

async fn rows(database: &Database, statement: &str) -> usize {
    sqlx::raw_sql(database.sql(statement)).fetch_all(&database.pool).await.unwrap().len()
}

#[tokio::test]
async fn every_statement_runs() {
    let database = Database::new().await;
    let found = [statements("operating.md"), statements("dotnet.md")].concat();
    assert_eq!(found.len(), 4, "{found:#?}");
    for statement in &found {
        rows(&database, statement).await;
    }
}

#[tokio::test]
async fn a_message_is_found_by_its_id_whoever_chose_it() {
    let id = 4_901_861_535_869_464_577;
    let find = statements("operating.md").remove(0);
    for (row, message_id) in [(id, id), (7, id)] {
        let database = Database::new().await;
        let mut headers = Headers::new();
        headers.insert("cap-msg-id", message_id.to_string());
        headers.insert("cap-msg-name", "order.created");
        let message = Arc::new(Message::new(headers, &b"1"[..]));
        database.publish(vec![NewOutgoing { message, ..outgoing(row) }]).await;
        assert_eq!(rows(&database, &find).await, 1, "row {row}");
    }
}
