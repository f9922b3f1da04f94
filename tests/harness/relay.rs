//! A network that can be bad: a UDP relay between an agent and its hub that loses, delays, reorders and repeats
//! datagrams as seeded dice fall, and cuts either direction on command.
//!
//! One relay per agent: the agent dials it, it forwards to the hub. It knows nothing of QUIC.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::dice::Dice;

/// Largest datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// Sockets of an agent remembered: it opens one per attempt to connect.
const PEERS_MAX: usize = 16;

/// What happens to datagrams, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Lost, per thousand.
    pub lost: u64,
    /// Delivered twice, per thousand.
    pub doubled: u64,
    /// Held back, per thousand, by a time drawn up to `hold_ms`: others overtake them.
    pub held: u64,
    /// Longest time one is held back, milliseconds.
    pub hold_ms: u64,
}

/// Which directions are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// None.
    #[default]
    Nothing,
    /// The hub hears nothing.
    ToHub,
    /// The agent hears nothing.
    ToAgent,
    /// Neither hears anything.
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToHub,
    ToAgent,
}

/// What a relay did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams that came.
    pub seen: u64,
    /// Of these, lost, by the weather or by a cut.
    pub lost: u64,
    /// Of these, held back.
    pub held: u64,
    /// Of these, delivered twice.
    pub doubled: u64,
}

struct Conditions {
    weather: Weather,
    cut: Cut,
    dice: Dice,
}

struct Shared {
    hub: SocketAddr,
    front: Arc<UdpSocket>,
    conditions: Mutex<Conditions>,
    counts: [AtomicU64; 4],
}

/// A relay that runs. Dropped, it forwards nothing more.
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl core::fmt::Debug for Relay {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Relay({} -> {}, {:?})", self.address, self.shared.hub, self.tally())
    }
}

impl Relay {
    /// A relay to `hub` in this weather; the same seed and traffic, the same fate of each datagram.
    ///
    /// # Panics
    /// No socket is to be had, or `hub` is no address.
    pub async fn start(hub: &str, weather: Weather, seed: u64) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
        let address = front.local_addr().expect("a bound socket has an address");
        let conditions = Conditions { weather, cut: Cut::Nothing, dice: Dice::new(seed) };
        let hub = hub.parse().unwrap_or_else(|error| panic!("{hub:?} is no address: {error}"));
        let counts = [const { AtomicU64::new(0) }; 4];
        let shared = Arc::new(Shared { hub, front, conditions: Mutex::new(conditions), counts });
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(shared.clone()));
        Self { shared, address, _tasks: tasks }
    }

    /// Where the agent dials.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.shared.conditions().weather = weather;
    }

    /// Cuts directions, or heals them.
    pub fn cut(&self, cut: Cut) {
        self.shared.conditions().cut = cut;
    }

    /// What it did so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let [seen, lost, held, doubled] = &self.shared.counts;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally { seen: count(seen), lost: count(lost), held: count(held), doubled: count(doubled) }
    }
}

/// How long each copy of a datagram is held back.
type Fate = Vec<Duration>;

impl Shared {
    fn conditions(&self) -> MutexGuard<'_, Conditions> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, way: Way) -> Fate {
        let [seen, lost, held, doubled] = &self.counts;
        let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        count(seen);
        let Conditions { weather, cut, dice } = &mut *self.conditions();
        let is_cut = matches!((*cut, way), (Cut::Both, _) | (Cut::ToHub, Way::ToHub) | (Cut::ToAgent, Way::ToAgent));
        // Always as many throws, so that a cut does not shift what follows.
        let (loss, double, hold) = (dice.below(1000), dice.below(1000), dice.below(1000));
        let time = Duration::from_millis(dice.below(weather.hold_ms + 1));
        if is_cut || loss < weather.lost {
            count(lost);
            return Vec::new();
        }
        let mut fate = vec![Duration::ZERO];
        if hold < weather.held {
            count(held);
            fate = vec![time];
        }
        if double < weather.doubled {
            count(doubled);
            fate.push(Duration::ZERO);
        }
        fate
    }
}

async fn deliver(socket: &Arc<UdpSocket>, datagram: &[u8], to: SocketAddr, fate: Fate) {
    for hold in fate {
        if hold.is_zero() {
            // Whoever is gone misses it, as on any network.
            let _ = socket.send_to(datagram, to).await;
        } else {
            let (socket, datagram) = (socket.clone(), datagram.to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(hold).await;
                let _ = socket.send_to(&datagram, to).await;
            });
        }
    }
}

/// Takes datagrams of the agent to the hub, with a socket of its own for each of the agent's.
async fn forward(shared: Arc<Shared>) {
    let mut peers: VecDeque<(SocketAddr, Arc<UdpSocket>)> = VecDeque::new();
    let mut backs = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        // A hub that is away is told to the sender as an error; the next datagram may arrive.
        let Ok((bytes, from)) = shared.front.recv_from(&mut datagram).await else { continue };
        let known = peers.iter().find(|(peer, _)| *peer == from).map(|(_, socket)| socket.clone());
        let socket = match known {
            Some(socket) => socket,
            None => {
                let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await.map(Arc::new) else { continue };
                backs.spawn(back(shared.clone(), socket.clone(), from));
                peers.push_back((from, socket.clone()));
                if peers.len() > PEERS_MAX {
                    peers.pop_front();
                }
                socket
            }
        };
        let fate = shared.fate(Way::ToHub);
        deliver(&socket, datagram.get(..bytes).unwrap_or_default(), shared.hub, fate).await;
    }
}

/// Takes the hub's datagrams back to one of the agent's sockets.
async fn back(shared: Arc<Shared>, socket: Arc<UdpSocket>, agent: SocketAddr) {
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((bytes, from)) if from == shared.hub => {
                let fate = shared.fate(Way::ToAgent);
                deliver(&shared.front, datagram.get(..bytes).unwrap_or_default(), agent, fate).await;
            }
            Ok(_) => {}
            // The hub is away: the system says so once for each datagram sent.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
