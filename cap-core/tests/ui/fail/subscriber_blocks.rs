use cap_core::{cap_subscribe, cap_subscriber};

struct Orders;
struct Typed<T>(T);
struct Borrowed<'a>(&'a str);

#[cap_subscriber("order")]
impl Clone for Orders {
    #[cap_subscribe("cloned")]
    fn clone(&self) -> Self {
        Self
    }
}

#[cap_subscriber("order")]
impl<T> Typed<T> {
    #[cap_subscribe("paid")]
    async fn paid(&self, _order: u64) {}
}

#[cap_subscriber("order")]
impl Borrowed<'_> {
    #[cap_subscribe("paid")]
    async fn paid(&self, _order: u64) {}
}

#[cap_subscriber("order")]
impl Orders {
    async fn paid(&self, _order: u64) {}
}

#[cap_subscriber("order.", crate = cap_core)]
impl Typed<u8> {
    #[cap_subscribe("billed", crate = cap_core)]
    async fn billed(&self, _order: u64) {}
}

fn main() {}
