//! A query as it came, and the answers that the server itself gives.

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts,
};
use hickory_proto::rr::{RData, Record};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, BinEncoder};

use crate::{MAX_MESSAGE, Protocol};

/// What a datagram may hold for a client that says nothing of it (RFC 1035, 4.2.1); less is not believed (RFC 6891,
/// 6.2.3).
const MIN_DATAGRAM: u16 = 512;

/// The longest datagram that is sent with an answer of our own, and what is said to be received.
const MAX_DATAGRAM: u16 = 4096;

/// The longest query that is read, in bytes: no question with its options has more, and long ones take time to read.
pub(crate) const MAX_QUERY: usize = 4096;

/// The size of an OPT record without options (RFC 6891, 6.1.2).
const OPT_SIZE: u16 = 11;

/// A query with one question, and what an answer repeats of the rest.
#[derive(Debug)]
pub struct Request {
    pub(crate) question: Query,
    metadata: Metadata,
    edns: Option<Edns>,
    /// The longest answer that the client takes.
    limit: u16,
}

/// Why a message is no query that could be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// It has no header, or is an answer: if those were answered, two servers could talk for ever.
    Silent,
    /// What the client is told.
    Told(Option<Vec<u8>>),
}

impl Request {
    /// Reads a query. Bytes after its end do not count.
    pub(crate) fn parse(bytes: &[u8], protocol: Protocol) -> Result<Self, Malformed> {
        let header = Header::read(&mut BinDecoder::new(bytes)).map_err(|_| Malformed::Silent)?;
        let metadata = header.metadata;
        if metadata.message_type == MessageType::Response {
            return Err(Malformed::Silent);
        }
        let told = |code| Malformed::Told(encode(response(&metadata, code), MIN_DATAGRAM));
        if metadata.op_code != OpCode::Query {
            return Err(told(ResponseCode::NotImp));
        }
        // Before any record is read. No more than one question means anything (RFC 9619).
        if header.counts.queries != 1 || bytes.len() > MAX_QUERY {
            return Err(told(ResponseCode::FormErr));
        }
        let message = Message::from_vec(bytes).map_err(|_| told(ResponseCode::FormErr))?;
        let limit = match (protocol, &message.edns) {
            (Protocol::Tcp, _) => MAX_MESSAGE,
            (Protocol::Udp, Some(edns)) => edns.max_payload().clamp(MIN_DATAGRAM, MAX_DATAGRAM),
            (Protocol::Udp, None) => MIN_DATAGRAM,
        };
        let question = message.queries.into_iter().next().ok_or_else(|| told(ResponseCode::FormErr))?;
        Ok(Self { question, metadata, edns: message.edns, limit })
    }

    /// The id that the client waits for.
    pub(crate) fn id(&self) -> u16 {
        self.metadata.id
    }

    /// The version of EDNS that is spoken, if any is.
    pub(crate) fn edns_version(&self) -> u8 {
        self.edns.as_ref().map_or(0, Edns::version)
    }

    /// An answer with a code alone; `None` if it cannot be written.
    pub(crate) fn answer_code(&self, code: ResponseCode) -> Option<Vec<u8>> {
        self.answer(code, Vec::new(), 0)
    }

    /// An answer with records of the name that was asked for. Those that are too many are left out, and the answer
    /// says so. `None` if it cannot be written.
    pub(crate) fn answer(&self, code: ResponseCode, data: Vec<RData>, ttl: u32) -> Option<Vec<u8>> {
        let mut message = response(&self.metadata, code);
        message.add_query(self.question.clone());
        let name = &self.question.name;
        message.add_answers(data.into_iter().map(|data| Record::from_rdata(name.clone(), ttl, data)));
        if let Some(asked) = &self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_DATAGRAM);
            // RFC 3225, 3: the bit is copied.
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            message.set_edns(edns);
        }
        encode(message, self.limit)
    }
}

/// RD and CD are as they were asked; recursion is available, if only through others.
fn response(asked: &Metadata, code: ResponseCode) -> Message {
    let mut message = Message::response(asked.id, asked.op_code);
    message.metadata = Metadata::response_from_request(asked);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message
}

fn encode(mut message: Message, limit: u16) -> Option<Vec<u8>> {
    let (bytes, header) = write(&message, message.edns.as_ref(), MAX_MESSAGE)?;
    if !header.metadata.truncation && bytes.len() <= limit.into() {
        return Some(bytes);
    }
    // What fits beside OPT, which comes last and must not be what is left out. Resolvers without TCP, such as older
    // ones of musl, make do with it.
    let beside = limit - if message.edns.is_some() { OPT_SIZE } else { 0 };
    let (_, header) = write(&message, None, beside)?;
    message.answers.truncate(header.counts.answers.into());
    message.metadata.truncation = true;
    Some(write(&message, message.edns.as_ref(), limit)?.0)
}

/// Writes as many answers as go into `limit` bytes; the header tells.
fn write(message: &Message, edns: Option<&Edns>, limit: u16) -> Option<(Vec<u8>, Header)> {
    let mut bytes = Vec::with_capacity(MIN_DATAGRAM.into());
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    let none = || std::iter::empty::<&Record>();
    let header = emit_message_parts(
        &message.metadata,
        &mut message.queries.iter(),
        &mut message.answers.iter(),
        &mut none(),
        &mut none(),
        edns,
        None,
        &mut encoder,
    );
    let header = header.ok()?;
    Some((bytes, header))
}
