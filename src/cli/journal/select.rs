//! Which events an operator means, by type. Called by `peek` and `export`.

use crate::event::descriptor::{EventType, NO_TYPE_NAME, UNKNOWN_PREFIX, event_names};
use crate::event::webhook::Source;

/// One type, or all types that this build does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TypeFilter {
    /// By its name.
    Named(String),
    /// Every unknown one.
    Unknown,
}

impl TypeFilter {
    /// Reads a type's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "Unknown" {
            return Ok(Self::Unknown);
        }
        let number = text.strip_prefix(UNKNOWN_PREFIX);
        let is_unknown = number.is_some_and(|number| number.parse::<u32>().is_ok());
        let is_webhook = Source::ALL.iter().any(|source| source.event_name() == text);
        if is_unknown
            || is_webhook
            || text == NO_TYPE_NAME
            || event_names().iter().any(|name| name == text)
        {
            return Ok(Self::Named(text.to_owned()));
        }
        let lower = text.to_lowercase();
        let similar: Vec<_> = event_names()
            .into_iter()
            .filter(|name| name.to_lowercase().contains(&lower))
            .collect();
        Err(if similar.is_empty() {
            "no event type has this name (LaunchEvent, …; Unknown, Unknown.<field>, <nil>, (webhook branch), …)".into()
        } else {
            format!(
                "no event type has this name; similar: {}",
                similar.join(", ")
            )
        })
    }

    fn takes(&self, event_type: &EventType) -> bool {
        match self {
            Self::Named(name) => *name == event_type.name(),
            Self::Unknown => matches!(event_type, EventType::Unknown(_)),
        }
    }
}

/// Whether an event is of one of the types; no types mean all.
pub(super) fn takes(types: &[TypeFilter], event_type: &EventType) -> bool {
    types.is_empty() || types.iter().any(|filter| filter.takes(event_type))
}

/// Whether a webhook is of one of the types; no types mean all.
pub(super) fn takes_webhook(types: &[TypeFilter], source: Source) -> bool {
    let is_named = |filter: &TypeFilter| matches!(filter, TypeFilter::Named(name) if name == source.event_name());
    types.is_empty() || types.iter().any(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_before_anything_is_read() {
        let unknown = TypeFilter::parse("Unknown").unwrap();
        let one = TypeFilter::parse("Unknown.200").unwrap();
        let launch = TypeFilter::parse("LaunchEvent").unwrap();
        assert!(takes(&[], &EventType::Unknown(200)));
        assert!(takes(
            &[launch.clone(), unknown.clone()],
            &EventType::Unknown(7)
        ));
        assert!(takes(std::slice::from_ref(&one), &EventType::Unknown(200)));
        assert!(!takes(&[one, launch], &EventType::Unknown(201)));
        assert!(!takes(&[unknown], &EventType::None));
        assert!(
            TypeFilter::parse("launchevent")
                .unwrap_err()
                .contains("LaunchEvent")
        );
        assert!(TypeFilter::parse("Unknown.x").is_err());
    }
}
