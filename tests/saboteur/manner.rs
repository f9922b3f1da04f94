//! How an agent behaves, and on which cue.

use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};
use forge_contract::task::Task;
use forge_tests::dice::Dice;

/// A million: rates are counted in parts of it.
const MILLION: u64 = 1_000_000;

macro_rules! manners {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A way to behave.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Manner { $($(#[$doc])* $name,)* }

        impl Manner {
            fn of(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

manners! {
    /// Does its work.
    Honest = "honest",
    /// A number of the folded fragment is another; the units are committed to as if true.
    WrongBits = "wrong-bits",
    /// The last unit burned a little more than it did.
    WrongFuel = "wrong-fuel",
    /// Computes nothing: every unit found zeros, and all of it fits together.
    Lazy = "lazy",
    /// Gives its first answer to every shard.
    Earlier = "earlier",
    /// Says what its accomplices say, who agree on a lie for each shard.
    Told = "told",
    /// Says that the kernel failed.
    Trap = "trap",
    /// Answers when its lease is over.
    Late = "late",
    /// Takes leases and never answers.
    Silent = "silent",
    /// Takes several times as long.
    Slow = "slow",
    /// Answers each lease twice.
    Twice = "twice",
    /// Answers for another agent's lease.
    Stolen = "stolen-lease",
    /// Somebody else signed.
    Signature = "other-signature",
    /// Anything but an answer on a lease's stream.
    Garbage = "garbage",
    /// Anything but a message on the session's own stream.
    Babble = "babble",
}

/// A manner and its cue: `MANNER[,after=N][,rate=PPM][,times=N][,count=N]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conduct {
    /// The manner.
    pub manner: Manner,
    /// Shards done honestly before.
    pub after: u64,
    /// Share of the shards after that, per million.
    pub rate_ppm: u64,
    /// How many times as long everything takes.
    pub times: u32,
    /// How many identities behave so.
    pub count: u32,
}

impl FromStr for Conduct {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(',');
        let manner = words.next().unwrap_or_default();
        let manner = Manner::of(manner).with_context(|| format!("'{manner}' is no manner"))?;
        let mut conduct = Self { manner, after: 0, rate_ppm: MILLION, times: 1, count: 1 };
        for word in words {
            match word.split_once('=') {
                Some(("after", number)) => conduct.after = number.parse()?,
                Some(("rate", number)) => conduct.rate_ppm = number.parse()?,
                Some(("times", number)) => conduct.times = number.parse()?,
                Some(("count", number)) => conduct.count = number.parse()?,
                _ => bail!("'{word}' is no cue"),
            }
        }
        Ok(conduct)
    }
}

impl Conduct {
    /// How the shard is answered before which `done` were.
    ///
    /// Determinism: a function of seed and task, so that the same shard meets the same manner again.
    pub fn manner_of(&self, task: &Task, seed: u64, done: u64) -> Manner {
        let key = task.key_digest();
        let mut low = [0; 8];
        low.copy_from_slice(key.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        let chance = Dice::new(seed ^ u64::from_le_bytes(low)).below(MILLION);
        if done >= self.after && chance < self.rate_ppm { self.manner } else { Manner::Honest }
    }
}
