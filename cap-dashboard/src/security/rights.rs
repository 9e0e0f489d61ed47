//! What a user may do.

/// What a user may do. Each right is given by name; none includes another, except that one who may act or unmask may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    acts: bool,
    unmasks: bool,
}

impl Rights {
    /// See messages, with masks, and everything else on the pages.
    #[must_use]
    pub fn read() -> Self {
        Self::default()
    }

    /// Also re-run, edit, cancel and delete messages.
    #[must_use]
    pub fn act(self) -> Self {
        Self { acts: true, ..self }
    }

    /// Also see what [`Masks`](crate::Masks) hide, and edit payloads with masked values.
    #[must_use]
    pub fn unmask(self) -> Self {
        Self { unmasks: true, ..self }
    }

    /// Every right.
    #[must_use]
    pub fn all() -> Self {
        Self::read().act().unmask()
    }

    /// Whether the user may change something.
    #[must_use]
    pub fn may_act(self) -> bool {
        self.acts
    }

    /// Whether the user sees what is masked.
    #[must_use]
    pub fn may_unmask(self) -> bool {
        self.unmasks
    }
}

/// Who makes a request, as your own layer has found out; see [`Auth::own_layer`](crate::Auth::own_layer). Insert it into the
/// extensions of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, for the audit.
    pub name: String,
    /// What the user may do.
    pub rights: Rights,
}

impl User {
    /// A user with these rights.
    #[must_use]
    pub fn new(name: impl Into<String>, rights: Rights) -> Self {
        Self { name: name.into(), rights }
    }
}
