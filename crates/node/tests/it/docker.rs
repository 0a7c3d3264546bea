//! The Docker engine on a real daemon.

use testkit::docker as fixture;

mod guard;
pub(super) mod life;
mod logs;
mod pull;
mod restart;
mod run;
mod secrets;
mod stop;
