//! What the tests share. Each binary takes a part of it.
#![allow(dead_code, unused_imports, reason = "each binary uses a part of it")]

mod base;
mod heap;
mod hosts;
mod limits;
mod panics;
mod polls;
mod probes;
mod process;
mod random;
mod runtimes;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod sandbox;
mod threads;
mod trace;
mod watchdog;

pub(crate) use base::*;
pub(crate) use heap::*;
pub(crate) use hosts::*;
pub(crate) use limits::*;
pub(crate) use panics::*;
pub(crate) use polls::*;
pub(crate) use probes::*;
pub(crate) use process::*;
pub(crate) use random::*;
pub(crate) use runtimes::*;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use sandbox::*;
pub(crate) use threads::*;
pub(crate) use trace::*;
pub(crate) use watchdog::*;
