//! The classes that a message falls into.

/// What became of a message in a group, or which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Its effect is there.
    Delivered,
    /// It failed for good, as it should have.
    GivenUp,
    /// Nobody knew whether it was stored; it was not.
    NeverStored,
    /// It was rolled back, refused, or cancelled in time, and nobody saw it.
    Unseen,
    /// Breach: said to be stored, or seen by another group, and there is neither an effect nor a failure.
    Lost,
    /// Breach: rolled back, refused or cancelled, and yet it is there.
    Phantom,
    /// Breach: more than one effect where one is promised.
    EffectDoubled,
    /// Breach: a handler ran again without a failure, a death, or trouble of its node.
    RunAgain,
    /// Breach: handled before an older message of its key, or together with it.
    Reordered,
    /// Breach: handled before it was due.
    Early,
    /// Breach: after everything has come to rest it still waits for something.
    Stuck,
    /// Breach: given up with attempts left.
    GivenUpEarly,
    /// Breach: more attempts than the policy allows.
    TriedTooOften,
    /// Breach: handled, and the answer, or what the handler published, is not there.
    FollowUpLost,
    /// Breach: an answer, or what a handler published, is there twice.
    FollowUpDoubled,
    /// Breach: an answer, or what a handler published, without the handler's success.
    FollowUpPhantom,
    /// Breach: failed for good, and nobody was told.
    NoticeLost,
    /// Breach: an operator was told again, though the node that told first had no trouble.
    NoticeDoubled,
    /// Breach: an operator was told of a failure that was none.
    NoticePhantom,
}

impl Class {
    /// Every class, in the order of the table.
    pub const ALL: [Self; 19] = [
        Self::Delivered,
        Self::GivenUp,
        Self::NeverStored,
        Self::Unseen,
        Self::Lost,
        Self::Phantom,
        Self::EffectDoubled,
        Self::RunAgain,
        Self::Reordered,
        Self::Early,
        Self::Stuck,
        Self::GivenUpEarly,
        Self::TriedTooOften,
        Self::FollowUpLost,
        Self::FollowUpDoubled,
        Self::FollowUpPhantom,
        Self::NoticeLost,
        Self::NoticeDoubled,
        Self::NoticePhantom,
    ];

    /// Whether it breaks a promise. Zero is the only accepted count of these.
    #[must_use]
    pub fn is_breach(self) -> bool {
        !matches!(self, Self::Delivered | Self::GivenUp | Self::NeverStored | Self::Unseen)
    }

    /// The class as the table names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::GivenUp => "given up",
            Self::NeverStored => "never stored",
            Self::Unseen => "unseen",
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::EffectDoubled => "effect doubled",
            Self::RunAgain => "run again without cause",
            Self::Reordered => "reordered",
            Self::Early => "early",
            Self::Stuck => "stuck",
            Self::GivenUpEarly => "given up early",
            Self::TriedTooOften => "tried too often",
            Self::FollowUpLost => "follow-up lost",
            Self::FollowUpDoubled => "follow-up doubled",
            Self::FollowUpPhantom => "follow-up phantom",
            Self::NoticeLost => "notice lost",
            Self::NoticeDoubled => "notice doubled",
            Self::NoticePhantom => "notice phantom",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_stands_in_the_table_once() {
        assert!(Class::ALL.is_sorted(), "as declared");
        assert_eq!(Class::ALL.iter().map(|class| class.as_str()).collect::<BTreeSet<_>>().len(), 19);
        assert_eq!(Class::ALL.iter().filter(|class| class.is_breach()).count(), 15);
    }
}
