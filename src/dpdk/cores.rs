//! Which core manages and which cores work.

/// CPU cores, by the system's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Runs the thread that starts EAL, and what that thread starts.
    pub management: usize,
    /// One core per worker; a core may stand here more than once.
    pub workers: Vec<usize>,
}

impl Cores {
    /// The cores named in `management` and `working`, and for what is `None` a choice among the others that this process may
    /// use: the first manages, the next ones work, and `workers` share cores when there are more of them than cores. If
    /// no other is left, everything shares one.
    #[must_use]
    pub fn choose(workers: usize, management: Option<usize>, working: Option<Vec<usize>>) -> Self {
        let mut allowed: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|core| core.id)
            .collect();
        allowed.sort_unstable();
        Self::spread(&allowed, workers, management, working)
    }

    /// Whether the management core is a worker's too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.workers.contains(&self.management)
    }

    fn spread(
        allowed: &[usize],
        workers: usize,
        management: Option<usize>,
        working: Option<Vec<usize>>,
    ) -> Self {
        let named = working.as_deref().unwrap_or_default();
        let management = management.unwrap_or_else(|| {
            let free = allowed.iter().find(|core| !named.contains(core));
            free.or(allowed.first()).copied().unwrap_or(0)
        });
        let workers = working.unwrap_or_else(|| {
            let mut free = allowed.to_vec();
            free.retain(|core| *core != management);
            if free.is_empty() {
                free.push(management);
            }
            free.into_iter().cycle().take(workers).collect()
        });
        Self {
            management,
            workers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_core_manages_and_the_others_work() {
        let cores = Cores::spread(&[2, 3, 5, 7], 2, None, None);
        assert_eq!(cores.management, 2);
        assert_eq!(cores.workers, [3, 5]);
        assert!(!cores.is_shared());
    }

    #[test]
    fn workers_share_cores_when_there_are_too_few() {
        let spread = |allowed: &[usize], workers| Cores::spread(allowed, workers, None, None);
        assert_eq!(spread(&[0, 1], 3).workers, [1, 1, 1]);
        assert_eq!(spread(&[4], 2).workers, [4, 4]);
        assert_eq!(spread(&[4], 2).management, 4);
        assert_eq!(spread(&[], 1).workers, [0]);
        assert!(spread(&[4], 1).is_shared());
    }

    #[test]
    fn what_is_named_is_not_chosen_again() {
        let cores = Cores::spread(&[0, 1, 2], 2, Some(1), None);
        assert_eq!((cores.management, &cores.workers[..]), (1, &[0, 2][..]));
        let cores = Cores::spread(&[0, 1, 2], 2, None, Some(vec![0, 1]));
        assert_eq!((cores.management, &cores.workers[..]), (2, &[0, 1][..]));
        assert!(!cores.is_shared());
        assert!(Cores::spread(&[0, 1], 2, None, Some(vec![0, 1])).is_shared());
        assert!(Cores::spread(&[1], 1, Some(1), None).is_shared());
    }

    #[test]
    fn chooses_among_the_cores_of_this_machine() {
        assert_eq!(Cores::choose(3, None, None).workers.len(), 3);
    }
}
