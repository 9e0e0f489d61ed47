//! The languages of the pages.

use super::words::{CHINESE, ENGLISH, Text};

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Language {
    #[default]
    English,
    Chinese,
}

impl Language {
    /// The tag for the page and its cookie.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::English, Self::Chinese].into_iter().find(|language| language.tag() == name)
    }

    /// The language of a tag that a browser accepts, such as `zh-CN;q=0.9`.
    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.split([';', '-']).next().unwrap_or_default().trim();
        Self::from_name(&primary.to_ascii_lowercase())
    }

    pub(crate) fn text(self) -> &'static Text {
        match self {
            Self::English => &ENGLISH,
            Self::Chinese => &CHINESE,
        }
    }
}
