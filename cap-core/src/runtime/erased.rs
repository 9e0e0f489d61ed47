//! Object-safe versions of the adapter traits. The public traits return native futures; these box one future for each
//! call, and a call serves a batch.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::error::{StorageError, TransportError};
use crate::message::Message;
use crate::monitor::{
    Act, Among, BoundedCounts, Change, Count, FailedAttempt, Lag, Monitor, NewAct, Query, Row, SearchLimits,
    SearchPage,
};
use crate::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, LookedFor, NodeRequest, Owner, SharedKey, Side, StartMark,
    Storage, TransactionId, Wake, WriteBatch, WriteReport,
};
use crate::transport::{
    Acknowledge, BrokerDelay, Confirmed, Consumer, GroupSpec, Incoming, Outbound, Sent, Tag, Transport,
    TransportContext,
};

type StorageFuture<'a, T> = BoxFuture<'a, Result<T, StorageError>>;
type TransportFuture<'a, T> = BoxFuture<'a, Result<T, TransportError>>;

/// An object-safe version of [`Storage`] and [`Monitor`].
pub(crate) trait DynStorage: Send + Sync {
    fn name(&self) -> &'static str;
    fn check(&self) -> Result<(), StorageError>;
    fn initialize(&self) -> StorageFuture<'_, ()>;
    fn check_names<'a>(&'a self, names: &'a [&'a str]) -> StorageFuture<'a, ()>;
    fn join<'a>(&'a self, request: &'a NodeRequest) -> StorageFuture<'a, u16>;
    fn keep_alive<'a>(&'a self, request: &'a NodeRequest, worker: u16) -> StorageFuture<'a, bool>;
    fn leave<'a>(&'a self, node: &'a str, worker: u16) -> StorageFuture<'a, ()>;
    fn shared_key<'a>(&'a self, fresh: &'a SharedKey) -> StorageFuture<'a, Option<SharedKey>>;
    fn write<'a>(&'a self, owner: &'a Owner, batch: &'a WriteBatch) -> StorageFuture<'a, WriteReport>;
    fn claim<'a>(&'a self, owner: &'a Owner, request: &'a ClaimRequest) -> StorageFuture<'a, Claims>;
    fn claim_waiting<'a>(
        &'a self,
        owner: &'a Owner,
        leases: &'a [Lease],
    ) -> StorageFuture<'a, Vec<Option<Claimed>>>;
    fn mark_started<'a>(&'a self, owner: &'a Owner, marks: &'a [StartMark]) -> StorageFuture<'a, Vec<bool>>;
    fn withdraw_crashes<'a>(&'a self, leases: &'a [Lease]) -> StorageFuture<'a, ()>;
    fn renew<'a>(&'a self, owner: &'a Owner, side: Side, leases: &'a [Lease])
    -> StorageFuture<'a, Vec<bool>>;
    fn look_for<'a>(
        &'a self,
        transactions: &'a [TransactionId],
        rows: &'a [i64],
    ) -> StorageFuture<'a, LookedFor>;
    fn announce(&self, side: Side) -> StorageFuture<'_, ()>;
    fn delete_expired<'a>(&'a self, expiry: &'a Expiry) -> StorageFuture<'a, (u64, u64)>;
    fn listen(&self, wake: Wake, cancelled: CancellationToken) -> BoxFuture<'_, ()>;
    fn apart(&self) -> Option<Arc<dyn DynStorage>>;
    fn as_any(&self) -> &dyn Any;
    fn shared(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;

    fn list<'a>(&'a self, query: &'a Query) -> StorageFuture<'a, Vec<Row>>;
    fn list_ids<'a>(&'a self, query: &'a Query) -> StorageFuture<'a, Vec<i64>>;
    fn search<'a>(&'a self, query: &'a Query, limits: &'a SearchLimits) -> StorageFuture<'a, SearchPage>;
    fn get(&self, side: Side, id: i64) -> StorageFuture<'_, Option<Row>>;
    fn find<'a>(&'a self, side: Side, message_id: &'a str) -> StorageFuture<'a, Vec<Row>>;
    fn attempts(&self, side: Side, id: i64) -> StorageFuture<'_, Vec<FailedAttempt>>;
    fn rerun<'a>(
        &'a self,
        side: Side,
        ids: &'a [i64],
        among: Among,
        change: &'a Change,
    ) -> StorageFuture<'a, Vec<i64>>;
    fn cancel<'a>(&'a self, ids: &'a [i64], keep: Duration) -> StorageFuture<'a, Vec<i64>>;
    fn delete<'a>(&'a self, side: Side, ids: &'a [i64], among: Among) -> StorageFuture<'a, Vec<i64>>;
    fn bounded_counts(&self, limit: u32) -> StorageFuture<'_, Option<BoundedCounts>>;
    fn counts(&self) -> StorageFuture<'_, Vec<Count>>;
    fn lags(&self) -> StorageFuture<'_, Option<Vec<Lag>>>;
    fn record<'a>(&'a self, act: &'a NewAct) -> StorageFuture<'a, ()>;
    fn acts(&self, before: Option<i64>, limit: usize) -> StorageFuture<'_, Vec<Act>>;
}

impl<S: Storage + Monitor> DynStorage for S {
    fn name(&self) -> &'static str {
        Storage::name(self)
    }
    fn check(&self) -> Result<(), StorageError> {
        Storage::check(self)
    }
    fn initialize(&self) -> StorageFuture<'_, ()> {
        Box::pin(Storage::initialize(self))
    }
    fn check_names<'a>(&'a self, names: &'a [&'a str]) -> StorageFuture<'a, ()> {
        Box::pin(Storage::check_names(self, names))
    }
    fn join<'a>(&'a self, request: &'a NodeRequest) -> StorageFuture<'a, u16> {
        Box::pin(Storage::join(self, request))
    }
    fn keep_alive<'a>(&'a self, request: &'a NodeRequest, worker: u16) -> StorageFuture<'a, bool> {
        Box::pin(Storage::keep_alive(self, request, worker))
    }
    fn leave<'a>(&'a self, node: &'a str, worker: u16) -> StorageFuture<'a, ()> {
        Box::pin(Storage::leave(self, node, worker))
    }
    fn shared_key<'a>(&'a self, fresh: &'a SharedKey) -> StorageFuture<'a, Option<SharedKey>> {
        Box::pin(Storage::shared_key(self, fresh))
    }
    fn write<'a>(&'a self, owner: &'a Owner, batch: &'a WriteBatch) -> StorageFuture<'a, WriteReport> {
        Box::pin(Storage::write(self, owner, batch))
    }
    fn claim<'a>(&'a self, owner: &'a Owner, request: &'a ClaimRequest) -> StorageFuture<'a, Claims> {
        Box::pin(Storage::claim(self, owner, request))
    }
    fn claim_waiting<'a>(
        &'a self,
        owner: &'a Owner,
        leases: &'a [Lease],
    ) -> StorageFuture<'a, Vec<Option<Claimed>>> {
        Box::pin(Storage::claim_waiting(self, owner, leases))
    }
    fn mark_started<'a>(&'a self, owner: &'a Owner, marks: &'a [StartMark]) -> StorageFuture<'a, Vec<bool>> {
        Box::pin(Storage::mark_started(self, owner, marks))
    }
    fn withdraw_crashes<'a>(&'a self, leases: &'a [Lease]) -> StorageFuture<'a, ()> {
        Box::pin(Storage::withdraw_crashes(self, leases))
    }
    fn renew<'a>(
        &'a self,
        owner: &'a Owner,
        side: Side,
        leases: &'a [Lease],
    ) -> StorageFuture<'a, Vec<bool>> {
        Box::pin(Storage::renew(self, owner, side, leases))
    }
    fn look_for<'a>(
        &'a self,
        transactions: &'a [TransactionId],
        rows: &'a [i64],
    ) -> StorageFuture<'a, LookedFor> {
        Box::pin(Storage::look_for(self, transactions, rows))
    }
    fn announce(&self, side: Side) -> StorageFuture<'_, ()> {
        Box::pin(Storage::announce(self, side))
    }
    fn delete_expired<'a>(&'a self, expiry: &'a Expiry) -> StorageFuture<'a, (u64, u64)> {
        Box::pin(Storage::delete_expired(self, expiry))
    }
    fn listen(&self, wake: Wake, cancelled: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(Storage::listen(self, wake, cancelled))
    }
    fn apart(&self) -> Option<Arc<dyn DynStorage>> {
        Storage::apart(self).map(|apart| Arc::new(apart) as _)
    }
    fn as_any(&self) -> &dyn Any {
        Storage::as_any(self)
    }
    fn shared(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn list<'a>(&'a self, query: &'a Query) -> StorageFuture<'a, Vec<Row>> {
        Box::pin(Monitor::list(self, query))
    }
    fn list_ids<'a>(&'a self, query: &'a Query) -> StorageFuture<'a, Vec<i64>> {
        Box::pin(Monitor::list_ids(self, query))
    }
    fn search<'a>(&'a self, query: &'a Query, limits: &'a SearchLimits) -> StorageFuture<'a, SearchPage> {
        Box::pin(Monitor::search(self, query, limits))
    }
    fn get(&self, side: Side, id: i64) -> StorageFuture<'_, Option<Row>> {
        Box::pin(Monitor::get(self, side, id))
    }
    fn find<'a>(&'a self, side: Side, message_id: &'a str) -> StorageFuture<'a, Vec<Row>> {
        Box::pin(Monitor::find(self, side, message_id))
    }
    fn attempts(&self, side: Side, id: i64) -> StorageFuture<'_, Vec<FailedAttempt>> {
        Box::pin(Monitor::attempts(self, side, id))
    }
    fn rerun<'a>(
        &'a self,
        side: Side,
        ids: &'a [i64],
        among: Among,
        change: &'a Change,
    ) -> StorageFuture<'a, Vec<i64>> {
        Box::pin(Monitor::rerun(self, side, ids, among, change))
    }
    fn cancel<'a>(&'a self, ids: &'a [i64], keep: Duration) -> StorageFuture<'a, Vec<i64>> {
        Box::pin(Monitor::cancel(self, ids, keep))
    }
    fn delete<'a>(&'a self, side: Side, ids: &'a [i64], among: Among) -> StorageFuture<'a, Vec<i64>> {
        Box::pin(Monitor::delete(self, side, ids, among))
    }
    fn bounded_counts(&self, limit: u32) -> StorageFuture<'_, Option<BoundedCounts>> {
        Box::pin(Monitor::bounded_counts(self, limit))
    }
    fn counts(&self) -> StorageFuture<'_, Vec<Count>> {
        Box::pin(Monitor::counts(self))
    }
    fn lags(&self) -> StorageFuture<'_, Option<Vec<Lag>>> {
        Box::pin(Monitor::lags(self))
    }
    fn record<'a>(&'a self, act: &'a NewAct) -> StorageFuture<'a, ()> {
        Box::pin(Monitor::record(self, act))
    }
    fn acts(&self, before: Option<i64>, limit: usize) -> StorageFuture<'_, Vec<Act>> {
        Box::pin(Monitor::acts(self, before, limit))
    }
}

/// An object-safe version of [`Transport`].
pub(crate) trait DynTransport: Send + Sync {
    fn name(&self) -> &'static str;
    fn start(&self, context: &TransportContext) -> Result<(), TransportError>;
    fn check_message(&self, message: &Message) -> Result<(), TransportError>;
    fn send<'a>(&'a self, messages: &'a [Arc<Message>]) -> BoxFuture<'a, Vec<Result<Sent, TransportError>>>;
    fn destination(&self) -> String;
    fn probe(&self) -> TransportFuture<'_, ()>;
    fn routing_key_is_topic(&self) -> bool;
    fn is_in_process(&self) -> bool;
    fn send_confirmed<'a>(
        &'a self,
        messages: &'a [Outbound],
    ) -> BoxFuture<'a, Vec<Result<Confirmed, TransportError>>>;
    fn broker_delay(&self) -> Option<&dyn BrokerDelay>;
    fn consume_within<'a>(
        &'a self,
        spec: &'a GroupSpec,
        bytes: usize,
    ) -> TransportFuture<'a, Box<dyn DynConsumer>>;
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl fmt::Debug for dyn DynTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<T: Transport> DynTransport for T {
    fn name(&self) -> &'static str {
        Transport::name(self)
    }
    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        Transport::start(self, context)
    }
    fn check_message(&self, message: &Message) -> Result<(), TransportError> {
        Transport::check_message(self, message)
    }
    fn send<'a>(&'a self, messages: &'a [Arc<Message>]) -> BoxFuture<'a, Vec<Result<Sent, TransportError>>> {
        Box::pin(Transport::send(self, messages))
    }
    fn destination(&self) -> String {
        Transport::destination(self)
    }
    fn probe(&self) -> TransportFuture<'_, ()> {
        Box::pin(Transport::probe(self))
    }
    fn routing_key_is_topic(&self) -> bool {
        Transport::routing_key_is_topic(self)
    }
    fn is_in_process(&self) -> bool {
        Transport::is_in_process(self)
    }
    fn send_confirmed<'a>(
        &'a self,
        messages: &'a [Outbound],
    ) -> BoxFuture<'a, Vec<Result<Confirmed, TransportError>>> {
        Box::pin(Transport::send_confirmed(self, messages))
    }
    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        Transport::broker_delay(self)
    }
    fn consume_within<'a>(
        &'a self,
        spec: &'a GroupSpec,
        bytes: usize,
    ) -> TransportFuture<'a, Box<dyn DynConsumer>> {
        Box::pin(async move {
            let consumer = Transport::consume_within(self, spec, bytes).await?;
            Ok(Box::new(consumer) as Box<dyn DynConsumer>)
        })
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Transport::close(self))
    }
}

/// An object-safe version of [`Consumer`].
pub(crate) trait DynConsumer: Send {
    fn receive_within(&mut self, limit: usize, bytes: usize) -> TransportFuture<'_, Vec<Incoming>>;
    fn acknowledge<'a>(&'a mut self, tags: &'a [Tag], how: Acknowledge) -> TransportFuture<'a, ()>;
}

impl<C: Consumer> DynConsumer for C {
    fn receive_within(&mut self, limit: usize, bytes: usize) -> TransportFuture<'_, Vec<Incoming>> {
        Box::pin(Consumer::receive_within(self, limit, bytes))
    }
    fn acknowledge<'a>(&'a mut self, tags: &'a [Tag], how: Acknowledge) -> TransportFuture<'a, ()> {
        Box::pin(Consumer::acknowledge(self, tags, how))
    }
}
