//! The Docker engine on a real daemon.

use testkit::docker as fixture;

mod guard;
mod life;
mod logs;
mod pull;
mod restart;
mod run;
mod secrets;
mod stop;
