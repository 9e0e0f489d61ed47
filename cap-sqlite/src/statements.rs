//! Every statement of the store, written out for its tables.
//!
//! This is the one place where SQL is put together from parts: the templates are constants of this crate, the prefix of
//! the tables holds nothing but letters, digits and underscores, and everything else is a parameter.
//!
//! No statement joins tables. A row is looked up by its key in one table at a time, or rows by an index that is named:
//! then SQLite's planner has nothing to choose. After an `ANALYZE` of small tables, which an application may run at any
//! moment, it would go through whole tables, and keep to that as they grow.

use cap_adapter::storage::Side;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::schema::TablePrefix;
use crate::{
    claim, complete, crash, expiry, identity, insert, monitor, nodes, shared_key, transaction, work,
};

/// One statement for each side.
#[derive(Debug)]
pub(crate) struct Sides {
    outbox: SqlStr,
    inbox: SqlStr,
}

impl Sides {
    pub(crate) fn of(&self, side: Side) -> SqlStr {
        match side {
            Side::Outbox => self.outbox.clone(),
            Side::Inbox => self.inbox.clone(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) insert_outgoing: SqlStr,
    pub(crate) insert_outgoing_state: SqlStr,
    pub(crate) insert_incoming: SqlStr,
    pub(crate) insert_incoming_state: SqlStr,
    pub(crate) held: Sides,
    pub(crate) holder: SqlStr,
    pub(crate) holder_state: SqlStr,
    pub(crate) set_aside: SqlStr,
    pub(crate) stored: SqlStr,
    pub(crate) end: Sides,
    pub(crate) forget: Sides,
    pub(crate) empty: Sides,
    pub(crate) change: Sides,
    pub(crate) record: Sides,
    pub(crate) due: Sides,
    pub(crate) next_due: Sides,
    pub(crate) waiting: SqlStr,
    pub(crate) claim: Sides,
    pub(crate) message: Sides,
    pub(crate) renew: Sides,
    pub(crate) mark_started: SqlStr,
    pub(crate) count_crash: SqlStr,
    pub(crate) record_crash: SqlStr,
    pub(crate) withdraw_crash: SqlStr,
    pub(crate) uncount_crash: SqlStr,
    pub(crate) expire_by_age: Sides,
    pub(crate) expire_by_state: Sides,
    pub(crate) delete_message: Sides,
    pub(crate) delete_state: Sides,
    pub(crate) delete_attempts: Sides,
    pub(crate) announce: SqlStr,
    pub(crate) announced: SqlStr,
    pub(crate) nodes: SqlStr,
    pub(crate) join: SqlStr,
    pub(crate) last_node: SqlStr,
    pub(crate) keep_alive: SqlStr,
    pub(crate) leave: SqlStr,
    pub(crate) shared_key: SqlStr,
    pub(crate) insert_shared_key: SqlStr,
    pub(crate) list_messages: Sides,
    pub(crate) list_states: Sides,
    pub(crate) get: Sides,
    pub(crate) find: Sides,
    pub(crate) attempts: SqlStr,
    pub(crate) rerun: Sides,
    pub(crate) headers: Sides,
    pub(crate) change_message: Sides,
    pub(crate) cancel: SqlStr,
    pub(crate) idle: Sides,
    pub(crate) counts: SqlStr,
    /// The two bounded ways to count: while there are few rows, and when there are many.
    pub(crate) count_few: Sides,
    pub(crate) count_many: Sides,
}

impl Statements {
    pub(crate) fn new(prefix: &TablePrefix) -> Self {
        let sql = |template: &str| statement(prefix, template);
        let sides = |template: &str| Sides {
            outbox: sql(&for_side(template, Side::Outbox)),
            inbox: sql(&for_side(template, Side::Inbox)),
        };
        let counting = |template: &str| Sides {
            outbox: sql(&for_side(&template.replace("{few_group}", "''"), Side::Outbox)),
            inbox: sql(&for_side(&template.replace("{few_group}", "x.group_name"), Side::Inbox)),
        };
        let rows = |template: &str| sides(&monitor::sql::rows(template));
        Self {
            insert_outgoing: sql(insert::OUTGOING),
            insert_outgoing_state: sql(insert::OUTGOING_STATE),
            insert_incoming: sql(insert::INCOMING),
            insert_incoming_state: sql(insert::INCOMING_STATE),
            held: sides(insert::HELD),
            holder: sql(identity::HOLDER),
            holder_state: sql(identity::HOLDER_STATE),
            set_aside: sql(identity::SET_ASIDE),
            stored: sql(transaction::STORED),
            end: sides(complete::END),
            forget: sides(complete::FORGET),
            empty: sides(complete::EMPTY),
            change: sides(complete::CHANGE),
            record: sides(complete::RECORD),
            due: Sides { outbox: sql(claim::DUE_OUTBOX), inbox: sql(claim::DUE_INBOX) },
            next_due: Sides { outbox: sql(claim::NEXT_OUTBOX), inbox: sql(claim::NEXT_INBOX) },
            waiting: sql(claim::WAITING),
            claim: sides(claim::CLAIM),
            message: sides(claim::MESSAGE),
            renew: sides(claim::RENEW),
            mark_started: sql(crash::MARK_STARTED),
            count_crash: sql(crash::COUNT),
            record_crash: sql(crash::RECORD),
            withdraw_crash: sql(crash::WITHDRAW),
            uncount_crash: sql(crash::UNCOUNT),
            expire_by_age: sides(expiry::BY_AGE),
            expire_by_state: sides(expiry::BY_STATE),
            delete_message: sides(expiry::DELETE_MESSAGE),
            delete_state: sides(expiry::DELETE_STATE),
            delete_attempts: sides(expiry::DELETE_ATTEMPTS),
            announce: sql(work::ANNOUNCE),
            announced: sql(work::ANNOUNCED),
            nodes: sql(nodes::ALL),
            join: sql(nodes::JOIN),
            last_node: sql(nodes::LAST),
            keep_alive: sql(nodes::KEEP_ALIVE),
            leave: sql(nodes::LEAVE),
            shared_key: sql(shared_key::READ),
            insert_shared_key: sql(shared_key::INSERT),
            list_messages: sides(monitor::sql::LIST_MESSAGES),
            list_states: sides(monitor::sql::LIST_STATES),
            get: rows(monitor::sql::GET),
            find: rows(monitor::sql::FIND),
            attempts: sql(monitor::sql::ATTEMPTS),
            rerun: rows(monitor::sql::RERUN),
            headers: sides(monitor::sql::HEADERS),
            change_message: sides(monitor::sql::CHANGE_MESSAGE),
            cancel: sql(monitor::sql::CANCEL),
            idle: sides(monitor::sql::IDLE),
            counts: sql(monitor::sql::COUNTS),
            count_few: counting(monitor::sql::COUNT_FEW),
            count_many: counting(monitor::sql::COUNT_MANY),
        }
    }
}

/// Fills in what differs between the sides.
fn for_side(template: &str, side: Side) -> String {
    let (messages, states, number) = match side {
        Side::Outbox => ("{prefix}outbox", "{prefix}outbox_state", "0"),
        Side::Inbox => ("{prefix}inbox", "{prefix}inbox_state", "1"),
    };
    let (group, group_column, no_crashes) = match side {
        Side::Outbox => ("''", "", ""),
        Side::Inbox => ("m.group_name", "group_name,", "crashes = 0, started_epoch = NULL,"),
    };
    template
        .replace("{messages}", messages)
        .replace("{states}", states)
        .replace("{side}", number)
        .replace("{group}", group)
        .replace("{group_column}", group_column)
        .replace("{no_crashes}", no_crashes)
}

/// The audited step: a template of this crate becomes a statement. Nothing but the prefix is put in.
pub(crate) fn statement(prefix: &TablePrefix, template: &str) -> SqlStr {
    let text: std::sync::Arc<str> = template.replace("{prefix}", prefix.safe()).into();
    AssertSqlSafe(text).into_sql_str()
}
