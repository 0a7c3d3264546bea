//! The Docker engine on a real daemon.

mod fixture;
mod life;
mod logs;
mod pull;
mod restart;
mod run;
mod stop;
