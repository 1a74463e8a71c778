//! The epoch of one direction (protocol section 4).

/// What a direction's Kri counts within: a new epoch has new keys, so its Kri starts at 0 again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The PairMasterSecret, by a number that this process gives each one and never gives twice; newer ones are higher.
    pub pms_serial: u32,
    /// Generation of the sending Secondary.
    pub src_generation: u32,
    /// Newest generation of the receiver's entry that the sender knows.
    pub dst_generation: u32,
}

impl Epoch {
    /// Whether a track of this epoch may move to `next`: the same sender, and a newer PMS, or the same with a newer receiver generation.
    /// Under another PMS receivers' generations may start over.
    #[must_use]
    pub fn precedes(&self, next: &Self) -> bool {
        let along = |epoch: &Self| (epoch.pms_serial, epoch.dst_generation);
        self.src_generation == next.src_generation && along(self) < along(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_forward_only_and_within_one_sender() {
        let e = Epoch {
            pms_serial: 2,
            src_generation: 5,
            dst_generation: 3,
        };
        assert!(!e.precedes(&e));
        assert!(e.precedes(&Epoch { pms_serial: 3, ..e }));
        assert!(e.precedes(&Epoch {
            dst_generation: 4,
            ..e
        }));
        assert!(!e.precedes(&Epoch {
            src_generation: 6,
            ..e
        }));
        assert!(!e.precedes(&Epoch {
            dst_generation: 2,
            ..e
        }));
        let renewed = Epoch {
            pms_serial: 3,
            dst_generation: 1,
            ..e
        };
        assert!(e.precedes(&renewed), "generations may start over");
        assert!(!renewed.precedes(&e));
    }
}
