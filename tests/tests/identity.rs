//! Somebody who may write to a queue cannot make another's message vanish: issue 9, row 1.

use cap_core::prelude::*;
use cap_core::storage::Reason;
use cap_tests::{Scene, amqp_user, heard, scene, until};
use lapin::BasicProperties;
use tokio::sync::mpsc;

type Told = mpsc::Receiver<(String, u32)>;

async fn service(scene: &Scene, with_user: bool) -> (Cap, Told) {
    let (tell, told) = mpsc::channel(64);
    let builder = scene.builder().configure(move |options| {
        options.user_in_identity = with_user;
        // So that messages are handled in the order in which they came.
        options.group_concurrency = 1;
    });
    let builder = builder.subscribe("pay", move |amount: u32, id: MessageId| {
        let tell = tell.clone();
        async move { tell.send((id.to_string(), amount)).await }
    });
    (scene.start(builder).await, told)
}

#[tokio::test]
async fn forged_messages_with_foreseen_ids_displace_no_real_ones() {
    scene(async |scene| {
        let (cap, mut told) = service(scene, false).await;
        let foreign = scene.foreign().await;
        // Garbage under ten ids, and messages that a handler takes under ten others.
        for id in 0..10 {
            let id = format!("garbage-{id}");
            foreign.send("pay", &[("cap-msg-id", &id), ("cap-msg-name", "nobody.takes.this")], b"{").await;
            let forged = id.replace("garbage", "forged");
            foreign.send_named("pay", &forged, b"1").await;
        }
        for id in 0..10 {
            foreign.send_named("pay", &format!("garbage-{id}"), b"100").await;
            foreign.send_named("pay", &format!("forged-{id}"), b"100").await;
        }
        foreign.send_named("pay", "end", b"0").await;
        let (mut real, mut forged) = (0, 0);
        loop {
            let (id, amount) = heard(&mut told).await;
            match (id.split_once('-').map(|(kind, _)| kind), amount) {
                (Some("garbage"), 100) => real += 1,
                (Some("forged"), 1) => forged += 1,
                (None, 0) => break,
                _ => panic!("{id}: {amount}"),
            }
        }
        assert_eq!((real, forged), (10, 10), "garbage holds no id");
        let conflicts = || cap.messages().parked().reason(Reason::IdConflict);
        until("the others to be parked", async || (conflicts().count().await.unwrap() == 10).then_some(()))
            .await;
        assert_eq!(conflicts().by("alice").rerun_all().await.unwrap(), 10);
        for _ in 0..10 {
            let (id, amount) = heard(&mut told).await;
            assert!(id.starts_with("forged") && amount == 100, "{id}: {amount}");
        }
        assert!(told.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn a_verified_user_can_be_part_of_the_identity() {
    scene(async |scene| {
        let (cap, mut told) = service(scene, true).await;
        let foreign = scene.foreign().await;
        let headers = [("cap-msg-id", "m"), ("cap-msg-name", "pay")];
        let plain = BasicProperties::default().with_headers(cap_tests::long_strings(&headers));
        // The broker refuses anybody's name but that of the connection's own user.
        for _ in 0..2 {
            foreign.publish("pay", plain.clone().with_user_id(amqp_user().into()), b"7").await;
            foreign.publish("pay", plain.clone(), b"7").await;
        }
        foreign.send_named("pay", "end", b"9").await;
        assert_eq!(heard(&mut told).await, ("m".to_owned(), 7));
        assert_eq!(heard(&mut told).await, ("end".to_owned(), 9));
        assert_eq!(cap.messages().parked().reason(Reason::IdConflict).count().await.unwrap(), 1);
    })
    .await;
}
