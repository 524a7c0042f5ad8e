//! Scenes that repeat another one, or whose captions are those of another: for methods that find such samples.

use rand::Rng;

use super::{Arguments, draw};

/// What is wrong with a scene on purpose. The number is that of another scene of the dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    #[default]
    Own,
    /// It has the image of that scene.
    DuplicateOf(u64),
    /// It has captions of that scene.
    CaptionsOf(u64),
}

impl Role {
    /// The role of scene `number`: a function of the seed and the number.
    pub(super) fn of(arguments: &Arguments, number: u64) -> Self {
        let mut rng = draw::stream(arguments.seed ^ ROLES, arguments.first_index + number, 0);
        let at: f64 = rng.random();
        if at < arguments.duplicates && number > 0 {
            // Of a scene that is none itself, so that the first of each group has an image of its own.
            let earlier = (0..TRIES).map(|_| rng.random_range(0..number));
            earlier
                .into_iter()
                .find(|&other| Self::is_own(arguments, other))
                .map_or(Self::Own, Self::DuplicateOf)
        } else if (arguments.duplicates..arguments.duplicates + arguments.mismatched).contains(&at)
            && arguments.count > 1
        {
            Self::CaptionsOf((number + rng.random_range(1..arguments.count)) % arguments.count)
        } else {
            Self::Own
        }
    }

    fn is_own(arguments: &Arguments, number: u64) -> bool {
        let at: f64 = draw::stream(arguments.seed ^ ROLES, arguments.first_index + number, 0).random();
        at >= arguments.duplicates + arguments.mismatched
    }
}

/// Number of earlier scenes that are tried as the original of a near-duplicate.
const TRIES: usize = 64;

/// Separates the random numbers of roles from those of scenes.
const ROLES: u64 = 0x726f_6c65_7300_0000;
