//! Switches Nagle's algorithm off on connections to the database.
//!
//! sqlx 0.9.0 leaves it on (its issue 4335). A batch that is larger than the socket's send buffer then goes in two
//! pieces, the second of which waits for the first to be acknowledged, which the server's side puts off for 40 ms: ten
//! times as long as the whole batch takes. sqlx does not show its socket, so that this goes by way of the kernel,
//! which gives a process a second handle to its own sockets. Where it does not (another system, a strict container)
//! everything works, only slower. To be removed with the sqlx release that repairs it.

/// Switches it off on every connection of this process to that port.
#[cfg(target_os = "linux")]
pub(crate) fn set_on_connections_to(port: u16) {
    if let Err(error) = linux::set_on_connections_to(port) {
        tracing::debug!(%error, "TCP_NODELAY could not be set; large batches may wait for acknowledgements");
    }
}

/// Nothing to be done here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set_on_connections_to(_port: u16) {}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::SocketAddr;

    use rustix::io;
    use rustix::net::{getpeername, sockopt};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    pub(super) fn set_on_connections_to(port: u16) -> Result<(), std::io::Error> {
        let myself = pidfd_open(getpid(), PidfdFlags::empty())?;
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let is_socket = std::fs::read_link(entry.path())
                .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !is_socket {
                continue;
            }
            let socket = match pidfd_getfd(&myself, number, PidfdGetfdFlags::empty()) {
                Ok(socket) => socket,
                // Closed since it was listed.
                Err(io::Errno::BADF) => continue,
                Err(error) => return Err(error.into()),
            };
            let peer = getpeername(&socket).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
            if peer.is_some_and(|peer| peer.port() == port) {
                sockopt::set_tcp_nodelay(&socket, true)?;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};

        #[test]
        fn connections_to_the_port_and_no_others_are_set() {
            let (one, two) =
                (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
            let connect =
                |listener: &TcpListener| TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (meant, other) = (connect(&one), connect(&two));
            super::set_on_connections_to(one.local_addr().unwrap().port()).unwrap();
            assert!(meant.nodelay().unwrap());
            assert!(!other.nodelay().unwrap());
        }
    }
}
