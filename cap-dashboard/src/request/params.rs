//! The parameters of a query or a form.

use super::problem::Problem;

/// The longest value that is accepted, in bytes. Payloads are read without this limit.
const LONGEST_VALUE: usize = 4_096;

/// The parameters of a query or a form, in order. Empty values count as absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Parses a query such as `topic=a&status=failed`.
    pub(crate) fn of_query(query: &str) -> Result<Self, Problem> {
        let parsed: Result<Vec<(String, String)>, _> =
            axum::extract::Query::try_from_uri(&uri_of(query)?).map(|axum::extract::Query(pairs)| pairs);
        let pairs = parsed.map_err(|error| Problem::bad(format!("invalid query: {error}")))?;
        let params = Self(pairs);
        match params.0.iter().find(|(_, value)| value.len() > LONGEST_VALUE || value.contains('\0')) {
            Some((name, _)) => Err(Problem::bad(format!("invalid value of {name:?}"))),
            None => Ok(params),
        }
    }

    pub(crate) fn of_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The first value of a name that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(found, value)| found == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    /// The number with this name.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Problem> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| Problem::bad(format!("{name} is not a valid number: {text:?}")))
            })
            .transpose()
    }
}

fn uri_of(query: &str) -> Result<axum::http::Uri, Problem> {
    format!("/?{query}").parse().map_err(|_| Problem::bad("invalid query"))
}
