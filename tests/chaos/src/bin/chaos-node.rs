//! A node of the fault tests; see `cap_chaos::live`.

fn main() {
    cap_chaos::live();
}
