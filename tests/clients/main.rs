//! Real clients against the real daemon: the `docker` command line (and ours) over a unix socket.
//!
//! Every test starts a daemon of its own, with roots under a temporary folder and a network namespace of its own,
//! and ends by checking that nothing is left: no mount, cgroup, process or file.

mod api;
mod apparmor;
mod attacks;
mod build;
mod build_cache;
mod build_cli;
mod build_cli_options;
mod build_diff;
mod build_fetch;
mod build_git;
mod build_platforms;
mod build_remote;
mod build_ssh;
mod cli;
mod compose;
mod crash;
mod differential;
mod explore;
mod faults;
mod files;
mod git_server;
mod harness;
mod health;
mod images;
mod kills;
mod ledger;
mod misbehaving;
mod network;
mod networks;
mod networks_stress;
mod options;
mod policies;
mod ports;
mod powercut;
mod pull;
mod reach;
mod registry_cli;
mod registry_server;
mod restart;
mod rootless;
mod run;
mod runtimes;
mod small_server;
mod storage;
mod terminal;
mod walkthrough;
mod web_server;
mod working;
mod working_kills;
mod working_runs;
