//! `cap man`.

use clap::Command;

use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run(program: Command) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(program).render(&mut page)?;
    Output::line(&String::from_utf8_lossy(&page))
}
