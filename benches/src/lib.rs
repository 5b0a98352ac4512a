//! snapring beside the limits of the hardware and beside its peers: what the benchmarks share.
//!
//! [`states`] says what is saved, [`place`] where to, [`ring`], [`swing`] and [`reopened`] by whom; [`limit`] and
//! [`by_hand`] are the references that nobody can beat by much, [`peers`] those that others have
//! written. [`run`] is criterion with our settings, [`duel`] runs rows by turns, [`other`] runs parts
//! of them in processes of their own, and [`results`] is what all that leaves for the report.

pub mod by_hand;
pub mod duel;
pub mod histogram;
pub mod limit;
pub mod other;
pub mod peers;
pub mod place;
pub mod reopened;
pub mod results;
pub mod ring;
pub mod run;
pub mod states;
pub mod swing;
