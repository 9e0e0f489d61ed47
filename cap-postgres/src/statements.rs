//! Every statement of the store, written out for its schema.
//!
//! This is the one place where SQL is put together from parts: the templates are constants of this crate, the
//! schema's name goes in quoted, and everything else is a parameter.

use cap_adapter::storage::{Lease, Side};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::schema::SchemaName;
use crate::{claim, complete, crash, expiry, identity, insert, monitor, nodes, shared_key, watch};

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
    /// The same for a single row, on a connection of the application's.
    pub(crate) insert_one: InsertOne,
    pub(crate) insert_incoming: SqlStr,
    pub(crate) held_ids: Sides,
    pub(crate) holders: SqlStr,
    pub(crate) lock_holder: SqlStr,
    pub(crate) set_aside: SqlStr,
    pub(crate) complete: Complete,
    /// The same for a single row, on a connection of the application's.
    pub(crate) complete_one: Complete,
    /// The schema's function that marks a handled message.
    forget: String,
    pub(crate) end_orphans: Sides,
    pub(crate) claim: Sides,
    pub(crate) claim_waiting: SqlStr,
    pub(crate) messages: Sides,
    pub(crate) renew: Sides,
    pub(crate) look_for: SqlStr,
    pub(crate) mark_started: SqlStr,
    pub(crate) withdraw_crashes: SqlStr,
    pub(crate) expire_by_state: Sides,
    pub(crate) expire_by_age: Sides,
    pub(crate) delete_expired: Sides,
    pub(crate) join_requested: SqlStr,
    pub(crate) last_node: SqlStr,
    pub(crate) node_of: SqlStr,
    pub(crate) free_worker: SqlStr,
    pub(crate) keep_alive: SqlStr,
    pub(crate) leave: SqlStr,
    pub(crate) shared_key: SqlStr,
    pub(crate) insert_shared_key: SqlStr,
    pub(crate) list: List,
    pub(crate) list_ids: List,
    pub(crate) get: Sides,
    pub(crate) find: Sides,
    pub(crate) attempts: SqlStr,
    pub(crate) lock_messages: Sides,
    pub(crate) rerun: Sides,
    pub(crate) headers: Sides,
    pub(crate) change_messages: Sides,
    pub(crate) cancel: SqlStr,
    pub(crate) delete: Sides,
    pub(crate) counts: SqlStr,
    /// The two bounded ways to count: while there are few rows, and when there are many.
    pub(crate) count_few: Sides,
    pub(crate) count_many: Sides,
}

/// The two ways to list: through the messages, and through the few state rows.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) messages: Sides,
    pub(crate) states: Sides,
}

/// The two ways to insert one message.
#[derive(Debug)]
pub(crate) struct InsertOne {
    /// Its message id is the row's.
    pub(crate) generated_id: SqlStr,
    /// It has a message id of the application's.
    pub(crate) own_id: SqlStr,
}

/// The three ways in which a state row is completed.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) forget: Sides,
    pub(crate) delete: Sides,
    pub(crate) change: Sides,
}

impl Statements {
    pub(crate) fn new(schema: &SchemaName) -> Self {
        let sql = |template: &str| statement(schema, template);
        let sides = |template: &str| Sides {
            outbox: sql(&for_side(template, Side::Outbox)),
            inbox: sql(&for_side(template, Side::Inbox)),
        };
        let complete = |rows: &str| Complete {
            forget: sides(&complete::FORGET.replace("{rows}", rows)),
            delete: sides(&complete::DELETE.replace("{rows}", rows)),
            change: sides(&complete::CHANGE.replace("{rows}", rows)),
        };
        let list = |columns: fn(&str) -> String| List {
            messages: sides(&columns(monitor::sql::LIST_MESSAGES)),
            states: sides(&columns(monitor::sql::LIST_STATES)),
        };
        Self {
            insert_outgoing: sql(insert::OUTGOING),
            insert_one: InsertOne {
                generated_id: sql(&insert::OUTGOING_ONE.replace("{conflict}", "")),
                own_id: sql(&insert::OUTGOING_ONE.replace("{conflict}", insert::CONFLICT)),
            },
            insert_incoming: sql(insert::INCOMING),
            held_ids: sides(insert::HELD_IDS),
            holders: sql(identity::HOLDERS),
            lock_holder: sql(identity::LOCK_HOLDER),
            set_aside: sql(identity::SET_ASIDE),
            complete: complete(""),
            complete_one: complete("LIMIT 1"),
            forget: format!("{}.forget", schema.quoted()),
            end_orphans: sides(complete::END),
            claim_waiting: sql(claim::WAITING),
            messages: sides(claim::MESSAGES),
            claim: Sides { outbox: sql(claim::OUTBOX), inbox: sql(claim::INBOX) },
            renew: sides(claim::RENEW),
            look_for: sql(watch::LOOK_FOR),
            mark_started: sql(crash::MARK_STARTED),
            withdraw_crashes: sql(crash::WITHDRAW_CRASHES),
            expire_by_state: sides(expiry::BY_STATE),
            expire_by_age: sides(expiry::BY_AGE),
            delete_expired: sides(expiry::DELETE),
            join_requested: sql(nodes::JOIN),
            last_node: sql(nodes::LAST),
            node_of: sql(nodes::NODE_OF),
            free_worker: sql(nodes::FREE),
            keep_alive: sql(nodes::KEEP_ALIVE),
            leave: sql(nodes::LEAVE),
            shared_key: sql(shared_key::READ),
            insert_shared_key: sql(shared_key::INSERT),
            list: list(monitor::sql::rows),
            list_ids: list(monitor::sql::ids),
            get: sides(&monitor::sql::rows(monitor::sql::GET)),
            find: Sides {
                outbox: sql(&for_side(&monitor::sql::rows(monitor::sql::FIND_OUTBOX), Side::Outbox)),
                inbox: sql(&for_side(&monitor::sql::rows(monitor::sql::FIND_INBOX), Side::Inbox)),
            },
            attempts: sql(monitor::sql::ATTEMPTS),
            lock_messages: sides(monitor::sql::LOCK_MESSAGES),
            rerun: sides(monitor::sql::RERUN),
            headers: sides(monitor::sql::HEADERS),
            change_messages: sides(monitor::sql::CHANGE_MESSAGES),
            cancel: sql(monitor::sql::CANCEL),
            delete: sides(monitor::sql::DELETE),
            counts: sql(monitor::sql::COUNTS),
            count_few: Sides {
                outbox: sql(&for_side(&monitor::probe::FEW.replace("{few_group}", "''::text"), Side::Outbox)),
                inbox: sql(&for_side(
                    &monitor::probe::FEW.replace("{few_group}", "x.group_name"),
                    Side::Inbox,
                )),
            },
            count_many: Sides {
                outbox: sql(monitor::probe::MANY_OUTBOX),
                inbox: sql(monitor::probe::MANY_INBOX),
            },
        }
    }
}

impl Statements {
    /// Marks a message that was handled in a transaction of the application's, and commits. The role that the handler has
    /// set may have no rights on our tables. Then a transaction is begun anew, as the driver believes to be in one.
    pub(crate) fn forget_and_commit(&self, lease: Lease) -> SqlStr {
        let Lease { id, epoch } = lease;
        let forget = &self.forget;
        AssertSqlSafe(format!(
            "SET LOCAL role TO DEFAULT; SELECT {forget}({id}::bigint, {epoch}::integer); COMMIT; BEGIN"
        ))
        .into_sql_str()
    }
}

/// Fills in what differs between the sides.
fn for_side(template: &str, side: Side) -> String {
    let (messages, states, number) = match side {
        Side::Outbox => ("{schema}.outbox", "{schema}.outbox_state", "0"),
        Side::Inbox => ("{schema}.inbox", "{schema}.inbox_state", "1"),
    };
    let (group, group_column, group_value, no_crashes) = match side {
        Side::Outbox => ("''::text", "", "", ""),
        Side::Inbox => ("m.group_name", "group_name,", "m.group_name,", "crashes = 0, started_epoch = NULL,"),
    };
    template
        .replace("{messages}", messages)
        .replace("{states}", states)
        .replace("{side}", number)
        .replace("{group}", group)
        .replace("{group_column}", group_column)
        .replace("{group_value}", group_value)
        .replace("{no_crashes}", no_crashes)
}

/// The audited step: a template of this crate becomes a statement. Nothing but the quoted name is put in.
pub(crate) fn statement(schema: &SchemaName, template: &str) -> SqlStr {
    let text: std::sync::Arc<str> = template.replace("{schema}", schema.quoted()).into();
    AssertSqlSafe(text).into_sql_str()
}
