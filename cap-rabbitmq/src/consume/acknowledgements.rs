//! Which acknowledgements to write: as few as possible for the given tags.

use std::collections::BTreeSet;

use cap_adapter::transport::Tag;

/// One acknowledgement to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) tag: Tag,
    /// It acknowledges every older delivery of the channel too.
    pub(crate) multiple: bool,
}

/// The deliveries that were handed out and not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Outstanding(BTreeSet<Tag>);

impl Outstanding {
    /// How many there are with a later tag.
    pub(crate) fn later_than(&self, tag: Tag) -> usize {
        self.0.range(tag + 1..).count()
    }

    /// The latest, or 0 if there are none.
    pub(crate) fn last(&self) -> Tag {
        self.0.last().copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, tag: Tag) {
        self.0.insert(tag);
    }

    /// Removes the given tags and returns the acknowledgements to write for them. A tag that is not outstanding is left
    /// out, because the broker closes a channel that acknowledges twice.
    ///
    /// The oldest deliveries, as far as all of them are among the tags, are acknowledged together; deliveries that
    /// lapin holds and has not handed out yet are younger, so it never reaches them.
    pub(crate) fn acknowledge(&mut self, tags: &[Tag]) -> Vec<Acknowledgement> {
        let mut tags: Vec<Tag> = tags.iter().copied().filter(|tag| self.0.remove(tag)).collect();
        tags.sort_unstable();
        let oldest_left = self.0.first().copied().unwrap_or(Tag::MAX);
        let prefix = tags.partition_point(|tag| *tag < oldest_left);
        let mut acknowledgements = Vec::with_capacity(tags.len() - prefix + 1);
        if let Some(last) = tags[..prefix].last() {
            acknowledgements.push(Acknowledgement { tag: *last, multiple: prefix > 1 });
        }
        acknowledgements
            .extend(tags[prefix..].iter().map(|tag| Acknowledgement { tag: *tag, multiple: false }));
        acknowledgements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding(tags: impl IntoIterator<Item = Tag>) -> Outstanding {
        Outstanding(tags.into_iter().collect())
    }

    #[track_caller]
    fn check(outstanding: &mut Outstanding, tags: &[Tag], expected: &[(Tag, bool)]) {
        let found: Vec<_> = outstanding.acknowledge(tags).iter().map(|one| (one.tag, one.multiple)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn all_tags_are_acknowledged_together() {
        check(&mut outstanding(1..=100), &(1..=100).collect::<Vec<_>>(), &[(100, true)]);
    }

    #[test]
    fn single_tag_is_not_multiple() {
        check(&mut outstanding([5, 6]), &[5], &[(5, false)]);
    }

    #[test]
    fn tags_behind_a_gap_are_acknowledged_one_by_one() {
        let mut left = outstanding(1..=6);
        check(&mut left, &[1, 2, 4, 6], &[(2, true), (4, false), (6, false)]);
        // 3 and 5 are the oldest now, though their numbers are not neighbours.
        check(&mut left, &[3, 5], &[(5, true)]);
    }

    #[test]
    fn no_tag_is_acknowledged_twice_or_unseen() {
        let mut left = outstanding(1..=3);
        check(&mut left, &[2, 2, 9], &[(2, false)]);
        check(&mut left, &[2], &[]);
        check(&mut left, &[], &[]);
        check(&mut left, &[3, 1], &[(3, true)]);
    }

    #[test]
    fn every_order_completes_each_exactly_once() {
        // The broker's view: a multiple acknowledges all up to it that are left, a single one just itself.
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let (mut ours, mut brokers) = (outstanding(1..=20), (1..=20).collect::<BTreeSet<Tag>>());
            let mut order: Vec<Tag> = (1..=20).collect();
            random.shuffle(&mut order);
            for batch in order.chunks(random.usize(1..=7)) {
                let mut expected = brokers.clone();
                for tag in batch {
                    assert!(expected.remove(tag));
                }
                for Acknowledgement { tag, multiple } in ours.acknowledge(batch) {
                    assert!(brokers.remove(&tag), "{tag} was acknowledged twice");
                    if multiple {
                        brokers.retain(|left| *left > tag);
                    }
                }
                assert_eq!(brokers, expected);
            }
        }
    }
}
