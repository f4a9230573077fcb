BEGIN TRANSACTION;
CREATE TABLE attempts (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	round INTEGER NOT NULL, 
	started FLOAT NOT NULL, 
	ended FLOAT NOT NULL, 
	transport TEXT DEFAULT 'move' NOT NULL, 
	level TEXT NOT NULL, 
	requested INTEGER NOT NULL, 
	newly_stored INTEGER NOT NULL, 
	verdict TEXT NOT NULL, 
	status INTEGER, 
	comment TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
);
INSERT INTO "attempts" VALUES(1,1,1,1.0,2.0,'move','STUDY',3,2,'success',0,'');
INSERT INTO "attempts" VALUES(2,2,1,1.0,2.0,'move','STUDY',3,2,'success',0,'');
CREATE TABLE claims (
	kind TEXT NOT NULL, 
	item INTEGER NOT NULL, 
	worker TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	claimed_at FLOAT NOT NULL, 
	PRIMARY KEY (kind, item)
)
 WITHOUT ROWID

;
CREATE TABLE folders (
	task_id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	PRIMARY KEY (task_id, path), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
)
 WITHOUT ROWID

;
CREATE TABLE instances (
	task_id INTEGER NOT NULL, 
	sop_uid TEXT NOT NULL, 
	series_id INTEGER NOT NULL, 
	class_id INTEGER, 
	syntax_id INTEGER, 
	size INTEGER, 
	digest BLOB, 
	path TEXT, 
	listed INTEGER NOT NULL, 
	PRIMARY KEY (task_id, sop_uid), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
)
 WITHOUT ROWID

;
INSERT INTO "instances" VALUES(1,'1.2.1.1.1',1,2,1,101,X'0101010101010101010101010101010101010101010101010101010101010101',NULL,1);
INSERT INTO "instances" VALUES(1,'1.2.1.1.2',1,2,1,102,X'0202020202020202020202020202020202020202020202020202020202020202',NULL,1);
INSERT INTO "instances" VALUES(2,'1.2.2.1.1',2,2,1,101,X'0101010101010101010101010101010101010101010101010101010101010101',NULL,1);
INSERT INTO "instances" VALUES(2,'1.2.2.1.2',2,2,1,102,X'0202020202020202020202020202020202020202020202020202020202020202',NULL,1);
CREATE TABLE job (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "job" VALUES('columns','["Accession"]');
CREATE TABLE on_complete_items (
	task_id INTEGER NOT NULL, 
	proof FLOAT NOT NULL, 
	state TEXT NOT NULL, 
	tries INTEGER NOT NULL, 
	not_before FLOAT, 
	ended FLOAT, 
	error TEXT NOT NULL, 
	PRIMARY KEY (task_id), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
);
CREATE TABLE postponements (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	until FLOAT NOT NULL, 
	why TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE queries (
	id INTEGER NOT NULL, 
	"row" INTEGER, 
	task_id INTEGER, 
	archive TEXT NOT NULL, 
	model TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	level TEXT NOT NULL, 
	keys TEXT NOT NULL, 
	started INTEGER NOT NULL, 
	duration INTEGER NOT NULL, 
	request_count INTEGER NOT NULL, 
	result_count INTEGER, 
	status INTEGER, 
	why TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE request_tasks (
	"row" INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	PRIMARY KEY ("row", task_id), 
	FOREIGN KEY("row") REFERENCES requests ("row"), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
)
 WITHOUT ROWID

;
INSERT INTO "request_tasks" VALUES(1,1);
INSERT INTO "request_tasks" VALUES(2,2);
CREATE TABLE requests (
	"row" INTEGER NOT NULL, 
	line INTEGER NOT NULL, 
	identity BLOB NOT NULL, 
	keys TEXT NOT NULL, 
	alternatives TEXT, 
	note TEXT DEFAULT '' NOT NULL, 
	cells TEXT NOT NULL, 
	state TEXT NOT NULL, 
	code TEXT, 
	details TEXT, 
	same_as INTEGER, 
	PRIMARY KEY ("row")
);
INSERT INTO "requests" VALUES(1,2,X'4FE57FA1ED00751C07BA4348CFE2DEEA','[["AccessionNumber", "A1"]]',NULL,'','["A1"]','resolved',NULL,NULL,NULL);
INSERT INTO "requests" VALUES(2,3,X'34726D0F39B95DD61197DB7241FB2D01','[["AccessionNumber", "A2"]]',NULL,'','["A2"]','resolved',NULL,NULL,NULL);
INSERT INTO "requests" VALUES(3,4,X'172D2CF38736FC79EE94DA2EA93E3B62','[["AccessionNumber", "A3"]]',NULL,'','["A3"]','concluded','study_not_found','{"keys": "accession"}',NULL);
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(3);
CREATE TABLE series (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	series_uid TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (task_id, series_uid), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
);
INSERT INTO "series" VALUES(1,1,'1.2.1.1');
INSERT INTO "series" VALUES(2,2,'1.2.2.1');
CREATE TABLE tasks (
	id INTEGER NOT NULL, 
	archive TEXT NOT NULL, 
	study_uid TEXT NOT NULL, 
	selection TEXT NOT NULL, 
	patient_id TEXT NOT NULL, 
	accession TEXT NOT NULL, 
	study_date TEXT NOT NULL, 
	modalities TEXT NOT NULL, 
	description TEXT NOT NULL, 
	series_count INTEGER, 
	instance_count INTEGER, 
	availability TEXT NOT NULL, 
	extra_attributes TEXT, 
	state TEXT NOT NULL, 
	not_before FLOAT, 
	code TEXT, 
	details TEXT, 
	expected INTEGER, 
	stored INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	folder TEXT NOT NULL, 
	proved_at FLOAT, 
	released_at FLOAT, 
	removing INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (study_uid, archive, selection)
);
INSERT INTO "tasks" VALUES(1,'main','1.2.1','','4711','A1','20180723','CT','CHEST',1,3,'',NULL,'concluded',NULL,'all_listed_stored','{"instances": 2}',2,2,203,'4711',1500000000.0,NULL,0);
INSERT INTO "tasks" VALUES(2,'main','1.2.2','','4711','A2','20180723','CT','CHEST',1,3,'',NULL,'concluded',NULL,'all_listed_stored','{"instances": 2}',2,2,203,'4711',1500000000.0,NULL,0);
CREATE TABLE uids (
	id INTEGER NOT NULL, 
	uid TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (uid)
);
INSERT INTO "uids" VALUES(1,'1.2.840.10008.1.2.1');
INSERT INTO "uids" VALUES(2,'1.2.840.10008.5.1.4.1.1.2');
CREATE INDEX requests_by_state ON requests (state, "row");
CREATE INDEX queries_by_task ON queries (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX queries_by_row ON queries ("row") WHERE row IS NOT NULL;
CREATE INDEX postponements_by_task ON postponements (task_id);
CREATE INDEX request_tasks_by_task ON request_tasks (task_id, "row");
CREATE INDEX attempts_by_task ON attempts (task_id);
CREATE INDEX on_complete_items_by_state ON on_complete_items (state, not_before, task_id);
CREATE INDEX requests_by_identity ON requests (identity);
CREATE INDEX tasks_waiting ON tasks (not_before, id) WHERE state = 'waiting' AND id + 0 > 0;
CREATE INDEX tasks_waiting_for_archive ON tasks (archive, not_before, id) WHERE state = 'waiting';
COMMIT;
