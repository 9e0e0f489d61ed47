//! Statements, written out for the names of the tables.
//!
//! This is the one place where SQL is put together from parts: the templates are constants of the adapters, the name that goes
//! in cannot end the identifier that it stands in, and everything else is a parameter.

use std::sync::Arc;

use cap_adapter::storage::Side;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// One statement for each side.
#[derive(Debug, Clone)]
pub struct Sides {
    /// The statement for the outbox.
    pub outbox: SqlStr,
    /// The statement for the inbox.
    pub inbox: SqlStr,
}

impl Sides {
    /// Returns the statement for a side. Its text is shared and not copied.
    #[must_use]
    pub fn of(&self, side: Side) -> SqlStr {
        match side {
            Side::Outbox => self.outbox.clone(),
            Side::Inbox => self.inbox.clone(),
        }
    }
}

/// Makes statements of an adapter's templates.
///
/// A template has these places, of which the last six differ between the sides:
///
/// | place | outbox | inbox |
/// |---|---|---|
/// | the placeholder | the name | the name |
/// | `{messages}` | the table `outbox` | the table `inbox` |
/// | `{states}` | the table `outbox_state` | the table `inbox_state` |
/// | `{side}` | `0` | `1` |
/// | `{group}` | an empty text | `m.group_name` |
/// | `{few_group}` | an empty text | `x.group_name` |
/// | `{group_column}`, `{group_value}` | nothing | `group_name,`, `m.group_name,` |
/// | `{no_crashes}` | nothing | the assignments that set the crashes to zero |
#[derive(Debug, Clone)]
pub struct Templates {
    placeholder: &'static str,
    name: String,
    qualifier: String,
    empty_text: &'static str,
}

impl Templates {
    /// Makes statements for tables in a schema: `{schema}` is the name of the schema, as a quoted identifier.
    #[must_use]
    pub fn in_schema(quoted: &str) -> Self {
        Self {
            placeholder: "{schema}",
            name: quoted.into(),
            qualifier: "{schema}.".into(),
            empty_text: "''::text",
        }
    }

    /// Makes statements for tables whose names begin with a prefix: `{prefix}` is the prefix, of letters, digits and `_`.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        Self { placeholder: "{prefix}", name: prefix.into(), qualifier: "{prefix}".into(), empty_text: "''" }
    }

    /// Makes the statement of a template that does not differ between the sides.
    #[must_use]
    pub fn one(&self, template: &str) -> SqlStr {
        // Audited: nothing but the name is put into the constant of an adapter.
        let text: Arc<str> = template.replace(self.placeholder, &self.name).into();
        AssertSqlSafe(text).into_sql_str()
    }

    /// Makes the statements of a template for both sides.
    #[must_use]
    pub fn sides(&self, template: &str) -> Sides {
        Sides { outbox: self.side(template, Side::Outbox), inbox: self.side(template, Side::Inbox) }
    }

    /// Makes the statement of a template for one side.
    #[must_use]
    pub fn side(&self, template: &str, side: Side) -> SqlStr {
        let qualifier = &self.qualifier;
        let (table, number) = match side {
            Side::Outbox => ("outbox", "0"),
            Side::Inbox => ("inbox", "1"),
        };
        let (group, few_group, column, value, no_crashes) = match side {
            Side::Outbox => (self.empty_text, self.empty_text, "", "", ""),
            Side::Inbox => (
                "m.group_name",
                "x.group_name",
                "group_name,",
                "m.group_name,",
                "crashes = 0, started_epoch = NULL,",
            ),
        };
        let text = template
            .replace("{messages}", &format!("{qualifier}{table}"))
            .replace("{states}", &format!("{qualifier}{table}_state"))
            .replace("{side}", number)
            .replace("{group}", group)
            .replace("{few_group}", few_group)
            .replace("{group_column}", column)
            .replace("{group_value}", value)
            .replace("{no_crashes}", no_crashes);
        self.one(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_differ_in_tables_and_groups() {
        let template = "SELECT {group} FROM {messages} AS m, {states} WHERE side = {side}";
        let sides = Templates::in_schema("\"cap\"").sides(template);
        let outbox = "SELECT ''::text FROM \"cap\".outbox AS m, \"cap\".outbox_state WHERE side = 0";
        assert_eq!(sides.of(Side::Outbox).as_str(), outbox);
        let inbox = Templates::with_prefix("cap_").side(template, Side::Inbox);
        assert_eq!(inbox.as_str(), "SELECT m.group_name FROM cap_inbox AS m, cap_inbox_state WHERE side = 1");
    }
}
