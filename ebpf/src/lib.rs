//! The compiled eBPF objects, as bytes for whoever loads them.
#![cfg_attr(target_arch = "bpf", no_std)]
