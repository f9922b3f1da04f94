//! Pieces of an object, each as sure as the whole.
//!
//! An object's digest is the root of BLAKE3's own hash tree. Whoever has the tree can send any pieces with the hashes
//! that lead from them to the digest, and whoever has the digest verifies each piece as it arrives. The smallest piece
//! is a group of 16 KiB. The encoding is the one of bao: from the root down and from left to right, a pair of hashes of
//! 64 bytes for each inner node that leads to something selected, the bytes of each selected group.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bao_tree::blake3::Hash;
use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::io::sync::{self, DecodeResponseIter, Outboard as _};
use bao_tree::io::{BaoContentItem, DecodeError};
use bao_tree::iter::{BaoChunk, ResponseIterRef};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges, ChunkRangesRef, TreeNode};
use bytes::{Buf as _, Bytes};
use forge_contract::Digest;
use serde::{Deserialize, Serialize};

pub use bao_tree::io::sync::ReadAt;

/// Size of a group, bytes: what is verified at once. An object's last group may be shorter.
pub const GROUP_BYTES: u64 = 16 << 10;
const GROUP: BlockSize = BlockSize::from_chunk_log(4);
/// BLAKE3's own chunks in a group.
const GROUP_CHUNKS: u64 = 1 << GROUP.chunk_log();
/// Bytes read at once where a tree is computed.
const READ_BYTES: usize = 1 << 20;

/// Groups one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first, counted from the object's start.
    pub first: u64,
    /// How many; what lies past the object's end is ignored.
    pub count: u64,
}

impl Span {
    /// Everything.
    pub const ALL: Self = Self { first: 0, count: u64::MAX };

    /// The groups that hold these bytes; none for no bytes.
    #[must_use]
    pub const fn covering(offset: u64, bytes: u64) -> Self {
        let first = offset / GROUP_BYTES;
        let end = offset.saturating_add(bytes).div_ceil(GROUP_BYTES);
        Self { first, count: if bytes == 0 { 0 } else { end - first } }
    }

    /// The first group behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// How many groups an object of so many bytes has; the empty object has one, which is empty.
#[must_use]
pub fn groups(bytes: u64) -> u64 {
    bytes.div_ceil(GROUP_BYTES).max(1)
}

/// An object's hash tree down to its groups: 64 bytes for each but one of them.
#[derive(Clone, Debug)]
pub struct Tree(PreOrderMemOutboard);

impl Tree {
    /// Computes the tree of `bytes` bytes that `data` gives.
    ///
    /// # Errors
    /// Those of `data`, its early end included.
    pub fn read(bytes: u64, data: impl Read) -> io::Result<Self> {
        let tree = BaoTree::new(bytes, GROUP);
        let room = usize::try_from(tree.outboard_size()).map_err(io::Error::other)?;
        let mut outboard = PreOrderMemOutboard { root: Hash::from([0; 32]), tree, data: vec![0; room] };
        outboard.root = sync::outboard(io::BufReader::with_capacity(READ_BYTES, data), tree, &mut outboard)?;
        Ok(Self(outboard))
    }

    /// The tree of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(PreOrderMemOutboard::create(bytes, GROUP))
    }

    /// The object's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(*self.0.root.as_bytes())
    }

    /// The object's size, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.tree.size()
    }

    /// What the tree takes in memory, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.0.data.len()
    }

    /// The hashes below an inner node.
    pub(crate) fn pair(&self, node: TreeNode) -> io::Result<[u8; 64]> {
        let none = || io::Error::other("the tree has no such node");
        let (left, right) = self.0.load(node)?.ok_or_else(none)?;
        let mut pair = [0; 64];
        let (first, second) = pair.split_at_mut(32);
        first.copy_from_slice(left.as_bytes());
        second.copy_from_slice(right.as_bytes());
        Ok(pair)
    }
}

/// What is asked for of an object of known size.
#[derive(Clone, Debug)]
pub struct Selection {
    tree: BaoTree,
    ranges: ChunkRanges,
}

/// What comes next in an encoding.
pub(crate) enum Step {
    /// The hashes below this node.
    Pair(TreeNode),
    /// The bytes of a group.
    Group { offset: u64, bytes: usize },
}

impl Selection {
    /// These spans, in any order, of an object of this size; `None` where that is nothing.
    #[must_use]
    pub fn new(bytes: u64, spans: &[Span]) -> Option<Self> {
        let groups = groups(bytes);
        let chunk = |group: u64| ChunkNum(group.saturating_mul(GROUP_CHUNKS));
        let mut ranges = ChunkRanges::empty();
        for span in spans.iter().filter(|span| span.count > 0 && span.first < groups) {
            // Without an end where it reaches the object's: the form that both sides agree on.
            ranges |= match span.end() >= groups {
                true => ChunkRanges::from(chunk(span.first)..),
                false => ChunkRanges::from(chunk(span.first)..chunk(span.end())),
            };
        }
        (!ranges.is_empty()).then(|| Self { tree: BaoTree::new(bytes, GROUP), ranges })
    }

    /// The order of the encoding.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> + Send {
        self.tree.ranges_pre_order_chunks_iter_ref(&self.ranges, 0).map(|chunk| match chunk {
            BaoChunk::Parent { node, .. } => Step::Pair(node),
            BaoChunk::Leaf { start_chunk, size, .. } => Step::Group { offset: start_chunk.to_bytes(), bytes: size },
        })
    }

    /// The selected bytes from `offset` on that lie one behind the other.
    pub(crate) fn run(&self, offset: u64) -> u64 {
        // Boundaries rise and say in turn where something selected begins and ends.
        let end = self.ranges.boundaries().iter().map(ChunkNum::to_bytes).find(|at| *at > offset);
        end.unwrap_or(u64::MAX).min(self.tree.size()).saturating_sub(offset)
    }
}

/// A group that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where its first byte lies.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The bytes are not the object's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was sent for byte {offset} has another digest")]
pub struct Wrong {
    /// Where in the object what is wrong belongs; of hashes, the first byte they stand for.
    pub offset: u64,
}

/// Verifies an encoding piece by piece.
pub struct Verifier<'a> {
    sizes: core::iter::Peekable<ResponseIterRef<'a>>,
    pieces: Pieces,
    decoder: DecodeResponseIter<'a, Pieces>,
}

impl core::fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Verifier")
    }
}

impl<'a> Verifier<'a> {
    /// Of what is selected of the object with this digest.
    #[must_use]
    pub fn new(digest: &Digest, selection: &'a Selection) -> Self {
        let Selection { tree, ranges } = selection;
        let (root, pieces) = (Hash::from(*digest.as_bytes()), Pieces::default());
        let decoder = DecodeResponseIter::new(root, *tree, pieces.clone(), ranges);
        Self { sizes: ResponseIterRef::new(*tree, ranges).peekable(), pieces, decoder }
    }

    /// Size of the piece that comes next, bytes; `None` at the end.
    pub fn due(&mut self) -> Option<usize> {
        self.sizes.peek().map(BaoChunk::size)
    }

    /// Takes a piece of the size that is due; gives the group it is, if it is one and not hashes.
    ///
    /// # Errors
    /// `Wrong`, upon which nothing else is taken.
    pub fn take(&mut self, piece: Bytes) -> Result<Option<Group>, Wrong> {
        let due = self.sizes.next();
        *self.pieces.0.lock().unwrap_or_else(PoisonError::into_inner) = piece;
        match self.decoder.next() {
            Some(Ok(BaoContentItem::Leaf(leaf))) => Ok(Some(Group { offset: leaf.offset, bytes: leaf.data })),
            Some(Ok(BaoContentItem::Parent(_))) | None => Ok(None),
            Some(Err(error)) => {
                self.sizes = ResponseIterRef::new(BaoTree::new(0, GROUP), ChunkRangesRef::empty()).peekable();
                Err(Wrong { offset: place(&error, due) })
            }
        }
    }
}

fn place(error: &DecodeError, due: Option<BaoChunk>) -> u64 {
    let node = |node: &TreeNode| node.chunk_range().start.to_bytes();
    match (error, due) {
        (DecodeError::LeafHashMismatch(chunk) | DecodeError::LeafNotFound(chunk), _) => chunk.to_bytes(),
        (DecodeError::ParentHashMismatch(at) | DecodeError::ParentNotFound(at), _) => node(at),
        (DecodeError::Io(_), Some(BaoChunk::Parent { node: at, .. })) => node(&at),
        (DecodeError::Io(_), Some(BaoChunk::Leaf { start_chunk, .. })) => start_chunk.to_bytes(),
        (DecodeError::Io(_), None) => 0,
    }
}

/// What the decoder reads: one piece at a time.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Bytes>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut piece = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = piece.len().min(buffer.len());
        piece.copy_to_slice(buffer.get_mut(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Verifies an encoding that is there whole.
///
/// # Errors
/// `Wrong`, also where bytes are missing.
pub fn verify(digest: &Digest, selection: &Selection, mut encoded: Bytes) -> Result<Vec<Group>, Wrong> {
    let mut verifier = Verifier::new(digest, selection);
    let mut found = Vec::new();
    while let Some(due) = verifier.due() {
        found.extend(verifier.take(encoded.split_to(due.min(encoded.len())))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    const G: usize = 16 << 10;

    fn object(bytes: usize) -> Vec<u8> {
        (0..=250u8).flat_map(|byte| [byte; 7]).cycle().take(bytes).collect()
    }

    fn encoded(object: &[u8], tree: &Tree, selection: &Selection) -> Vec<u8> {
        let mut bytes = Vec::new();
        for step in selection.steps() {
            match step {
                Step::Pair(node) => bytes.extend(tree.pair(node).unwrap()),
                Step::Group { offset, bytes: count } => {
                    bytes.extend(&object[usize::try_from(offset).unwrap()..][..count]);
                }
            }
        }
        bytes
    }

    #[test]
    fn a_tree_has_the_objects_digest_however_it_is_read() {
        for bytes in [0, 1, G - 1, G, G + 1, 5 * G + 77, 64 * G] {
            let object = object(bytes);
            let (tree, read) = (Tree::of(&object), Tree::read(bytes as u64, &object[..]).unwrap());
            assert_eq!((tree.digest(), tree.bytes()), (Digest::of(&object), bytes as u64));
            assert_eq!(read.digest(), tree.digest());
        }
        assert!(Tree::read(5, &b"four"[..]).is_err());
    }

    #[test]
    fn spans_cover_what_is_asked_for() {
        let span = |first, count| Span { first, count };
        assert_eq!(Span::covering(0, 1), span(0, 1));
        assert_eq!(Span::covering(GROUP_BYTES - 1, 2), span(0, 2));
        assert_eq!(Span::covering(GROUP_BYTES, GROUP_BYTES), span(1, 1));
        assert_eq!(Span::covering(7, 0).count, 0);
        assert_eq!(Span::covering(0, u64::MAX).end(), u64::MAX / GROUP_BYTES + 1);
        assert!(Selection::new(10, &[]).is_none() && Selection::new(10, &[span(1, 1), span(0, 0)]).is_none());
        assert!(Selection::new(0, &[Span::ALL]).is_some());
        let selection = Selection::new(10 * GROUP_BYTES - 1, &[span(1, 2), span(3, 1), span(9, 5)]).unwrap();
        assert_eq!(selection.run(GROUP_BYTES), 3 * GROUP_BYTES);
        assert_eq!(selection.run(9 * GROUP_BYTES + 1), GROUP_BYTES - 2);
    }

    #[test]
    fn one_wrong_bit_is_refused_where_it_lies() {
        let object = object(9 * G + 100);
        let (tree, digest) = (Tree::of(&object), Digest::of(&object));
        let selection =
            Selection::new(object.len() as u64, &[Span { first: 2, count: 3 }, Span { first: 9, count: 1 }]);
        let selection = selection.unwrap();
        let right = encoded(&object, &tree, &selection);
        let groups = verify(&digest, &selection, right.clone().into()).unwrap();
        let places: Vec<u64> = groups.iter().map(|group| group.offset / GROUP_BYTES).collect();
        assert_eq!(places, [2, 3, 4, 9]);
        for at in (0..right.len()).step_by(97) {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            let found = verify(&digest, &selection, wrong.into()).unwrap_err();
            assert!(found.offset < object.len() as u64);
        }
        assert!(verify(&digest, &selection, right[..right.len() - 1].to_vec().into()).is_err());
        // Another range, rightly proven, is not what was asked for.
        let other = Selection::new(object.len() as u64, &[Span { first: 3, count: 4 }]).unwrap();
        assert!(verify(&digest, &selection, encoded(&object, &tree, &other).into()).is_err());
        // Nor is another object's.
        assert!(verify(&Digest::of(b"x"), &selection, right.into()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_spans_of_any_object_arrive(
            bytes in 0usize..20 * G,
            spans in prop::collection::vec((0u64..22, 0u64..6), 1..5),
        ) {
            let object = object(bytes);
            let tree = Tree::of(&object);
            let spans: Vec<Span> = spans.into_iter().map(|(first, count)| Span { first, count }).collect();
            let wanted: Vec<u64> = (0..groups(bytes as u64))
                .filter(|group| spans.iter().any(|span| (span.first..span.end()).contains(group)))
                .collect();
            let Some(selection) = Selection::new(bytes as u64, &spans) else {
                prop_assert!(wanted.is_empty());
                return Ok(());
            };
            let found = verify(&tree.digest(), &selection, encoded(&object, &tree, &selection).into()).unwrap();
            prop_assert_eq!(found.iter().map(|group| group.offset / GROUP_BYTES).collect::<Vec<_>>(), wanted);
            for group in found {
                prop_assert_eq!(&object[usize::try_from(group.offset).unwrap()..][..group.bytes.len()], &group.bytes[..]);
            }
        }
    }
}
