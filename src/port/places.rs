//! A number of places, of which one peer may hold only a part: connections of a port, and
//! bytes of bodies in memory. Called by `serve`, and by `ingest` for bodies.
//!
//! # Invariants
//! - No more are taken than there are, and no peer has more than its part (test
//!   `one_peer_cannot_take_all`).
//! - What is dropped is free again, and nothing is remembered of a peer that holds nothing
//!   (test `what_is_given_back_is_there_again`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv6 address that one host cannot choose: a network gives each of its hosts at
/// least 64 to choose from.
const IPV6_PREFIX_BITS: u32 = 64;

/// Whom a place is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 network.
    V6(u128),
    /// A client that proved who it is, by its place in the configuration.
    Client(usize),
}

impl From<IpAddr> for Whose {
    fn from(address: IpAddr) -> Self {
        let network = |v6: Ipv6Addr| v6.to_bits() >> (128 - IPV6_PREFIX_BITS);
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => v6
                .to_ipv4_mapped()
                .map_or_else(|| Self::V6(network(v6)), Self::V4),
        }
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Short {
    /// All are taken.
    #[error("no place is free")]
    All,
    /// The peer has its part.
    #[error("this address has all the places that one may have")]
    One,
}

/// Places, shared by clones.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all_max: usize,
    one_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Whose, usize>,
}

/// Some places, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    whose: Whose,
    count: usize,
}

impl Places {
    /// So many, and so many of them for one peer.
    #[must_use]
    pub fn new(all_max: usize, one_max: usize) -> Self {
        Self(Arc::new(Inner {
            all_max,
            one_max,
            taken: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    /// How many one peer may have.
    #[must_use]
    pub fn one_max(&self) -> usize {
        self.0.one_max
    }

    /// Takes some at once, or none.
    ///
    /// # Errors
    /// See [`Short`].
    pub fn take(&self, whose: Whose, count: usize) -> Result<Place, Short> {
        self.add(whose, count)?;
        Ok(Place {
            places: self.clone(),
            whose,
            count,
        })
    }

    fn add(&self, whose: Whose, count: usize) -> Result<(), Short> {
        let mut taken = self.lock();
        let all = taken.all.saturating_add(count);
        let one = taken.by.get(&whose).copied().unwrap_or(0);
        let one = one.saturating_add(count);
        if all > self.0.all_max {
            return Err(Short::All);
        }
        if one > self.0.one_max {
            return Err(Short::One);
        }
        taken.all = all;
        taken.by.insert(whose, one);
        Ok(())
    }
}

impl Place {
    /// How many places this is.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes more for the same peer, or none.
    ///
    /// # Errors
    /// See [`Short`]; what was taken before stays.
    pub fn grow(&mut self, by: usize) -> Result<(), Short> {
        self.places.add(self.whose, by)?;
        self.count += by;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(self.count);
        if let Some(one) = taken.by.get_mut(&self.whose) {
            *one = one.saturating_sub(self.count);
            if *one == 0 {
                taken.by.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(text: &str) -> Whose {
        Whose::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn one_peer_cannot_take_all() {
        let places = Places::new(4, 2);
        let (a, b, c) = (whose("10.0.0.1"), whose("10.0.0.2"), whose("10.0.0.3"));
        let held: Vec<_> = [a, a, b, b].map(|who| places.take(who, 1).unwrap()).into();
        assert_eq!(places.take(c, 1).unwrap_err(), Short::All);
        drop(held.into_iter().next_back());
        assert_eq!(places.taken(), 0);
        let mut one = places.take(a, 1).unwrap();
        one.grow(1).unwrap();
        assert_eq!(one.grow(1), Err(Short::One));
        assert_eq!(places.take(a, 1).unwrap_err(), Short::One);
        assert_eq!((one.count(), places.taken()), (2, 2));
        assert_eq!(places.take(b, usize::MAX).unwrap_err(), Short::All);
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let places = Places::new(2, 2);
        for round in 0..3 {
            let mut one = places.take(whose("::1"), 1).unwrap();
            one.grow(1).unwrap();
            assert_eq!(places.taken(), 2, "{round}");
            drop(one);
            assert_eq!((places.taken(), places.lock().by.len()), (0, 0));
        }
    }

    #[test]
    fn a_host_has_one_name_whatever_address_it_chooses() {
        assert_eq!(whose("2001:db8:1:2::1"), whose("2001:db8:1:2:ffff::9"));
        assert_ne!(whose("2001:db8:1:2::1"), whose("2001:db8:1:3::1"));
        assert_eq!(whose("::ffff:10.0.0.1"), whose("10.0.0.1"));
        assert_ne!(whose("10.0.0.1"), whose("10.0.0.2"));
    }
}
