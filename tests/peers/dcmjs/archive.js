// A small archive on dcmjs-dimse, which has services and no index: what it stores, it keeps in memory.
//
// node archive.js TITLE PORT '{"QUARRY": {"host": "127.0.0.1", "port": 11113}}'

const net = require('net');
const path = require('path');

const modules = process.env.NODE_MODULES;
const { Client, Dataset, Scp, Server, constants, requests, responses } = require(path.join(modules, 'dcmjs-dimse'));
const { PresentationContextResult, SopClass, Status, StorageClass, TransferSyntax } = constants;
const { CStoreRequest } = requests;
const { CEchoResponse, CFindResponse, CGetResponse, CMoveResponse, CStoreResponse } = responses;

const [title, port, destinations] = [process.argv[2], Number(process.argv[3]), JSON.parse(process.argv[4])];
const instances = new Map();

// The library has no option for the address that it listens on.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (number, ...rest) {
  return listen.call(this, number, '127.0.0.1', ...rest);
};

const UNIQUE = {
  STUDY: 'StudyInstanceUID',
  SERIES: 'SeriesInstanceUID',
  IMAGE: 'SOPInstanceUID',
};
const text = (value) => (value === undefined || value === null ? '' : String(value));
const wanted = (value) => (Array.isArray(value) ? value.map(text) : text(value).split('\\'));

// The instances whose values are those of the keys; an empty key matches everything.
function matching(keys) {
  return [...instances.values()].filter((held) =>
    Object.entries(keys).every(([keyword, value]) => {
      if (keyword === 'QueryRetrieveLevel' || keyword === 'SpecificCharacterSet' || keyword.startsWith('_')) {
        return true;
      }
      const values = wanted(value).filter((one) => one !== '');
      return values.length === 0 || typeof value === 'object' && !Array.isArray(value)
        || values.includes(text(held.getElements()[keyword]));
    })
  );
}

class Archive extends Scp {
  associationRequested(association) {
    const plain = [TransferSyntax.ExplicitVRLittleEndian, TransferSyntax.ImplicitVRLittleEndian];
    const classes = [...Object.values(SopClass), ...Object.values(StorageClass)];
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      const syntax = plain.find((uid) => context.getTransferSyntaxUids().includes(uid));
      if (!classes.includes(context.getAbstractSyntaxUid())) {
        context.setResult(PresentationContextResult.RejectAbstractSyntaxNotSupported);
      } else if (syntax === undefined) {
        context.setResult(PresentationContextResult.RejectTransferSyntaxesNotSupported);
      } else {
        context.setResult(PresentationContextResult.Accept, syntax);
      }
    }
    this.sendAssociationAccept();
  }

  cEchoRequest(request, callback) {
    const response = CEchoResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  cStoreRequest(request, callback) {
    const dataset = request.getDataset();
    instances.set(text(dataset.getElement('SOPInstanceUID')), dataset);
    const response = CStoreResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  cFindRequest(request, callback) {
    const keys = request.getDataset().getElements();
    const unique = UNIQUE[keys.QueryRetrieveLevel];
    const found = new Map();
    for (const held of matching(keys)) {
      const elements = held.getElements();
      const answer = {};
      for (const keyword of Object.keys(keys)) {
        answer[keyword] = keyword === 'QueryRetrieveLevel' ? keys[keyword] : elements[keyword] ?? '';
      }
      found.set(text(elements[unique]), answer);
    }
    const pending = [...found.values()].map((answer) => {
      const response = CFindResponse.fromRequest(request);
      response.setDataset(new Dataset(answer));
      response.setStatus(Status.Pending);
      return response;
    });
    const last = CFindResponse.fromRequest(request);
    last.setStatus(Status.Success);
    callback([...pending, last]);
  }

  cMoveRequest(request, callback) {
    const name = text(request.getCommandDataset().getElement('MoveDestination')).trim();
    const destination = destinations[name];
    if (destination === undefined) {
      this.finish(CMoveResponse, request, callback, { status: Status.MoveDestinationUnknown });
      return;
    }
    const held = matching(request.getDataset().getElements());
    const client = new Client();
    const count = this.stores(held, (store) => client.addRequest(store));
    const done = () => this.finish(CMoveResponse, request, callback, count);
    if (held.length === 0) {
      done();
      return;
    }
    client.on('closed', done);
    client.on('networkError', (error) => console.log(String(error)));
    client.send(destination.host, destination.port, title, name);
  }

  cGetRequest(request, callback) {
    const held = matching(request.getDataset().getElements());
    const stores = [];
    const count = this.stores(held, (store) => stores.push(store));
    const done = () => this.finish(CGetResponse, request, callback, count);
    if (held.length === 0) {
      done();
      return;
    }
    count.whenAll = done;
    this.sendRequests(stores);
  }

  // One C-STORE request an instance; the counts that are returned grow with the answers.
  stores(held, add) {
    const count = { asked: held.length, completed: 0, failed: 0 };
    for (const dataset of held) {
      const store = new CStoreRequest(dataset);
      store.on('response', (response) => {
        count[response.getStatus() === Status.Success ? 'completed' : 'failed'] += 1;
        if (count.completed + count.failed === count.asked && count.whenAll) {
          count.whenAll();
        }
      });
      add(store);
    }
    return count;
  }

  finish(Response, request, callback, { status, asked = 0, completed = 0 }) {
    const response = Response.fromRequest(request);
    response.setStatus(status ?? (completed === asked ? Status.Success : 0xb000));
    response.setRemaining(0);
    response.setCompleted(completed);
    response.setFailures(asked - completed);
    callback([response]);
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

const server = new Server(Archive);
server.on('networkError', (error) => console.log(String(error)));
server.listen(port);
