//! Large inputs, piece by piece: what workers read is fetched once for all of them, verified, and kept within a bound.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use forge_contract::{Digest, Failure, FailureCode};
use forge_protocol::message::SPANS_MAX;
use forge_protocol::proof::{GROUP_BYTES, Group, Span, groups};
use forge_sandbox::{Piece, Supply, Want};
use tokio::sync::watch;

use crate::transfer::Source;

/// Bytes of pieces kept, all inputs together.
const KEPT_BYTES_MAX: u64 = 512 << 20;
/// Fetched at most for reads that are expected, bytes.
const AHEAD_BYTES_MAX: u64 = 4 << 20;

/// What there is of large inputs.
pub(crate) struct Stock {
    source: Source,
    bytes_max: u64,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    groups: HashMap<Place, Kept>,
    coming: HashMap<Place, watch::Receiver<Reached>>,
    bytes: u64,
    clock: u64,
}

/// A group of an input, by number.
type Place = (Digest, u64);

struct Kept {
    bytes: Bytes,
    used: u64,
}

/// How far a transfer is.
#[derive(Clone, Debug, Default)]
struct Reached {
    /// Every group of it below this one has come.
    next: u64,
    ended: Option<Result<(), Failure>>,
}

/// One input in stock, for the shards that read it.
pub(crate) struct Lot {
    stock: Arc<Stock>,
    digest: Digest,
    bytes: u64,
}

impl Stock {
    pub fn new(source: Source) -> Arc<Self> {
        Arc::new(Self { source, bytes_max: KEPT_BYTES_MAX, shelf: Mutex::default() })
    }

    /// An input of this digest and size.
    pub fn lot(self: &Arc<Self>, digest: Digest, bytes: u64) -> Arc<Lot> {
        Arc::new(Lot { stock: Arc::clone(self), digest, bytes })
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, digest: Digest, group: Group) {
        let mut shelf = self.shelf();
        shelf.clock += 1;
        let (number, used) = (group.offset / GROUP_BYTES, shelf.clock);
        shelf.coming.remove(&(digest, number));
        shelf.bytes += group.bytes.len() as u64;
        let before = shelf.groups.insert((digest, number), Kept { bytes: group.bytes, used });
        shelf.bytes -= before.map_or(0, |before| before.bytes.len() as u64);
        shelf.make_room(self.bytes_max);
    }

    /// Begins to get these groups of an input, rising, whoever waits for them.
    fn fetch(
        self: &Arc<Self>,
        shelf: &mut Shelf,
        (digest, bytes): (Digest, u64),
        wanted: Vec<u64>,
    ) -> watch::Receiver<Reached> {
        let (tell, reached) = watch::channel(Reached::default());
        shelf.coming.extend(wanted.iter().map(|group| ((digest, *group), reached.clone())));
        let (stock, own) = (Arc::clone(self), reached.clone());
        tokio::spawn(async move {
            let arrived = |group: Group| {
                let next = group.offset / GROUP_BYTES + 1;
                stock.arrived(digest, group);
                tell.send_modify(|reached| reached.next = next);
            };
            let ended = stock.source.pieces((digest, bytes), &wanted, SPANS_MAX, arrived).await;
            let mut shelf = stock.shelf();
            for group in &wanted {
                // Only its own: one that came and made room again may be on its way once more.
                if shelf.coming.get(&(digest, *group)).is_some_and(|reached| reached.same_channel(&own)) {
                    shelf.coming.remove(&(digest, *group));
                }
            }
            drop(shelf);
            tell.send_modify(|reached| reached.ended = Some(ended));
        });
        reached
    }
}

impl Shelf {
    fn holds(&self, place: &Place) -> bool {
        self.groups.contains_key(place) || self.coming.contains_key(place)
    }

    /// Drops what was not used for longest, some more than there is too much.
    fn make_room(&mut self, bytes_max: u64) {
        if self.bytes <= bytes_max {
            return;
        }
        let mut places: Vec<(u64, Place)> = self.groups.iter().map(|(place, kept)| (kept.used, *place)).collect();
        places.sort_unstable_by_key(|(used, _)| *used);
        for (_, place) in places {
            if self.bytes <= bytes_max / 4 * 3 {
                return;
            }
            self.bytes -= self.groups.remove(&place).map_or(0, |kept| kept.bytes.len() as u64);
        }
    }

    /// The groups of these that are here, as pieces: those one behind the other in one.
    fn pieces(&mut self, digest: Digest, wanted: impl Iterator<Item = u64>) -> Vec<Piece> {
        self.clock += 1;
        let mut found: Vec<(u64, BytesMut)> = Vec::new();
        for group in wanted {
            let Some(kept) = self.groups.get_mut(&(digest, group)) else { continue };
            kept.used = self.clock;
            let offset = group * GROUP_BYTES;
            match found.last_mut() {
                Some((first, bytes)) if *first + bytes.len() as u64 == offset => bytes.extend_from_slice(&kept.bytes),
                _ => found.push((offset, BytesMut::from(&kept.bytes[..]))),
            }
        }
        found.into_iter().map(|(offset, bytes)| Piece { offset, bytes: bytes.freeze() }).collect()
    }
}

impl Lot {
    /// The groups that hold these bytes, as far as the input goes.
    fn groups(&self, offset: u64, bytes: u64) -> impl Iterator<Item = u64> + use<> {
        let span = Span::covering(offset, bytes);
        span.first..span.end().min(groups(self.bytes))
    }

    /// The groups that the reads expected next will need, beyond `needed`: first those to be handed over with it, then
    /// all that may be fetched meanwhile.
    fn ahead(&self, want: Want, needed: &BTreeSet<u64>) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut near, mut far) = (BTreeSet::new(), BTreeSet::new());
        let steps = u64::from(want.steps).min(SPANS_MAX as u64);
        for step in 1..=steps {
            let offset = want.offset.saturating_add(want.stride.saturating_mul(step));
            if offset >= self.bytes || far.len() as u64 * GROUP_BYTES >= AHEAD_BYTES_MAX {
                break;
            }
            let next = self.groups(offset, want.bytes).filter(|group| !needed.contains(group));
            far.extend(next);
            if step * 2 <= steps + 1 {
                near.clone_from(&far);
            }
        }
        (near, far)
    }
}

#[async_trait]
impl Supply for Lot {
    async fn pieces(&self, want: Want) -> Result<Vec<Piece>, Failure> {
        let needed: BTreeSet<u64> = self.groups(want.offset, want.bytes).collect();
        let (near, far) = self.ahead(want, &needed);
        let mut own: Option<watch::Receiver<Reached>> = None;
        loop {
            let (group, mut coming) = match self.look(&needed, &near, &far, &mut own) {
                Look::Here(pieces) => return Ok(pieces),
                Look::Coming(group, coming) => (group, coming),
            };
            let ended = match coming.wait_for(|reached| reached.next > group || reached.ended.is_some()).await {
                Ok(reached) => reached.ended.clone(),
                Err(_) => return Err(Failure::new(FailureCode::AgentFetch, "the transfer was given up")),
            };
            match ended {
                Some(Err(failure)) if own.as_ref().is_some_and(|own| own.same_channel(&coming)) => return Err(failure),
                // It is here, or what others began and could not end is begun once more.
                _ => {}
            }
        }
    }
}

/// What a look into the stock finds.
enum Look {
    /// What is needed, and more.
    Here(Vec<Piece>),
    /// The first group that is needed and not here yet.
    Coming(u64, watch::Receiver<Reached>),
}

impl Lot {
    /// Looks once; has fetched what is not even on its way.
    fn look(
        &self,
        needed: &BTreeSet<u64>,
        near: &BTreeSet<u64>,
        far: &BTreeSet<u64>,
        own: &mut Option<watch::Receiver<Reached>>,
    ) -> Look {
        let digest = self.digest;
        let mut shelf = self.stock.shelf();
        let lacks = |shelf: &Shelf, group: &u64| !shelf.holds(&(digest, *group));
        let mut missing: BTreeSet<u64> = needed.iter().copied().filter(|group| lacks(&shelf, group)).collect();
        // Expected reads are fetched many at a time: when half of them are not even on their way.
        let half = far.iter().nth(far.len() / 2).is_some_and(|group| lacks(&shelf, group));
        if own.is_none() && (half || !missing.is_empty()) {
            missing.extend(far.iter().filter(|group| lacks(&shelf, group)));
        }
        if !missing.is_empty() {
            let missing = missing.into_iter().collect();
            *own = Some(self.stock.fetch(&mut shelf, (digest, self.bytes), missing));
        }
        let absent = needed.iter().find(|group| !shelf.groups.contains_key(&(digest, **group)));
        match absent.and_then(|group| Some((*group, shelf.coming.get(&(digest, *group))?.clone()))) {
            Some((group, coming)) => Look::Coming(group, coming),
            None => Look::Here(shelf.pieces(digest, needed.iter().chain(near).copied())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const G: u64 = GROUP_BYTES;

    fn stock(bytes_max: u64) -> Arc<Stock> {
        let (_, sessions) = watch::channel(None);
        let source = Source::new(sessions, Arc::default());
        Arc::new(Stock { source, bytes_max, shelf: Mutex::default() })
    }

    fn group(number: u64) -> Group {
        let bytes = vec![u8::try_from(number).unwrap(); usize::try_from(G).unwrap()];
        Group { offset: number * G, bytes: bytes.into() }
    }

    fn want(offset: u64, bytes: u64, stride: u64, steps: u32) -> Want {
        Want { offset, bytes, stride, steps }
    }

    #[test]
    fn what_is_expected_is_within_the_input_and_a_bound() {
        let lot = stock(1 << 30).lot(Digest::of(b"x"), 100 * G);
        let needed: BTreeSet<u64> = lot.groups(5 * G, 10).collect();
        assert_eq!(Vec::from_iter(needed.clone()), [5]);
        let (near, far) = lot.ahead(want(5 * G, 10, 2 * G, 4), &needed);
        assert_eq!((Vec::from_iter(near), Vec::from_iter(far)), (vec![7, 9], vec![7, 9, 11, 13]));
        let (near, far) = lot.ahead(want(5 * G, 10, 1000, 1), &needed);
        assert!(near.is_empty() && far.is_empty(), "it lies in the same group");
        let (_, far) = lot.ahead(want(90 * G, G, 4 * G, 200), &BTreeSet::from([90]));
        assert_eq!(Vec::from_iter(far), [94, 98]);
        let large = stock(1 << 30).lot(Digest::of(b"x"), 1 << 30);
        let (_, far) = large.ahead(want(0, 1 << 20, 1 << 20, u32::MAX), &BTreeSet::new());
        assert_eq!(far.len() as u64 * G, AHEAD_BYTES_MAX);
        let (_, far) = large.ahead(want(0, 1, 0, u32::MAX), &BTreeSet::from([0]));
        assert!(far.is_empty());
    }

    #[tokio::test]
    async fn what_is_here_is_handed_over_in_runs() {
        let stock = stock(1 << 30);
        let digest = Digest::of(b"x");
        let lot = stock.lot(digest, 10 * G - 1);
        for number in [1, 2, 4, 5, 7] {
            stock.arrived(digest, group(number));
        }
        let pieces = lot.pieces(want(2 * G - 1, 2, G, 6)).await.unwrap();
        let places: Vec<(u64, u64)> =
            pieces.iter().map(|piece| (piece.offset / G, piece.bytes.len() as u64 / G)).collect();
        // Of six reads that are expected, the first three are handed over as far as they are here.
        assert_eq!(places, [(1, 2), (4, 2)]);
    }

    #[tokio::test]
    async fn what_others_could_not_end_is_begun_once_more() {
        let stock = stock(1 << 30);
        let digest = Digest::of(b"x");
        let lot = stock.lot(digest, 10 * G);
        let (tell, reached) = watch::channel(Reached::default());
        stock.shelf().coming.insert((digest, 0), reached);
        let reading = tokio::spawn(async move { lot.pieces(want(0, 1, 0, 0)).await });
        while tell.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        stock.shelf().coming.clear();
        tell.send_modify(|reached| reached.ended = Some(Err(Failure::new(FailureCode::AgentFetch, "theirs"))));
        // Its own attempt has no session to go by, and says so.
        let failure = reading.await.unwrap().unwrap_err();
        assert!(failure.detail.contains("there is no session"), "{failure}");
        assert!(stock.shelf().coming.is_empty());
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let stock = stock(8 * G);
        let digest = Digest::of(b"x");
        for number in 0..8 {
            stock.arrived(digest, group(number));
        }
        stock.shelf().pieces(digest, [0, 1].into_iter());
        stock.arrived(digest, group(8));
        let shelf = stock.shelf();
        let mut here: Vec<u64> = shelf.groups.keys().map(|(_, number)| *number).collect();
        here.sort_unstable();
        assert_eq!((here, shelf.bytes), (vec![0, 1, 5, 6, 7, 8], 6 * G));
    }
}
