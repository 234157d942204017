//! The kernel side of tcptrace. It remembers nothing: each probe turns one kernel event into one
//! record in the ring.
//!
//! One probe, one file. [`emit`] alone touches the ring; [`sock`], [`packet`] and [`task`] read the
//! kernel's structures at the offsets that the loader found in BTF.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    unsafe_code,
    reason = "eBPF reads kernel memory by address; the verifier proves each access before the program may run"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_ptr_alignment,
    reason = "64-bit registers hold the kernel's smaller types; a checked conversion would be a branch per field"
)]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros call a probe with its context by value")]

mod emit;
mod empty;
mod globals;
mod handled;
mod inet_sock_set_state;
mod memory;
mod packet;
mod sock;
mod task;
mod tcp_receive_reset;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;
mod tcp_send_reset;

/// What the kernel asks for before it lets a program use GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The compiler wants one; nothing here can panic, and the verifier would refuse a loop.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
