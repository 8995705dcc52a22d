//! Tables of what apps report beside the dispatched events: launches, referrals,
//! experiments. Filled by the handlers of the same names.
