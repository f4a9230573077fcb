BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num TEXT NOT NULL, 
	PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE attempts (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	round INTEGER NOT NULL, 
	started FLOAT NOT NULL, 
	ended FLOAT NOT NULL, 
	level TEXT NOT NULL, 
	asked INTEGER NOT NULL, 
	gained INTEGER NOT NULL, 
	verdict TEXT NOT NULL, 
	status INTEGER, 
	comment TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
);
INSERT INTO "attempts" VALUES(1,1,1,1.79540390304203152658e+09,1.79540390305982875828e+09,'STUDY',2,2,'success',0,'');
INSERT INTO "attempts" VALUES(2,2,1,1.79540390307238245009e+09,1.79540390308068299298e+09,'STUDY',2,2,'success',0,'');
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
INSERT INTO "instances" VALUES(1,'2.25.21630229584944914017981361472635264081',1,2,1,9098,X'B130F3089E86CD67ECE02C80BF77ABAD5277DEFEB392D228D4A62F9BD3EF5370',NULL,1);
INSERT INTO "instances" VALUES(1,'2.25.313688973242910860896287334481515208163',1,2,1,9098,X'E3FB08634FB4D7EC5675C129F94BBBB3BA74EE9C0094C94126CABFD012903C91',NULL,1);
INSERT INTO "instances" VALUES(2,'2.25.134526752772480763437536369152409676778',2,2,1,9098,X'57108726D64C5B02AD1E6336324B26013511E684CCAA11DDBA27E79FBA73558F',NULL,1);
INSERT INTO "instances" VALUES(2,'2.25.265168900715344149091161969906918085451',2,2,1,9098,X'1E6E988C135E5362CFE2F54D422D8F266710628668EA292613272867AF83F5D2',NULL,1);
CREATE TABLE job (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "job" VALUES('created','2026-11-23T03:18:22+00:00');
INSERT INTO "job" VALUES('cohort','33638c62e1e58529f74f061b27457e9435ee1909c2d94e179e868b1976ecae5b');
INSERT INTO "job" VALUES('columns','["EMPI", "Accession"]');
INSERT INTO "job" VALUES('settings','{"archives":[{"window":null,"time_zone":null,"after_window":"finish","parallel":null,"queries_per_second":null,"studies_per_hour":null,"megabytes_per_second":null,"name":"DEMO","address":{"title":"DEMO","host":"127.0.0.1","port":44281},"model":"study","query_timeout":120.0,"silence":600.0,"settle":10.0,"senders":[],"tls":"none","merged_ids":"mismatch","character_set":"ISO_IR 192","result_cap":null,"lowest_level":"image","relational":false,"move_identifiers":"uids","nearline_patience":14400.0}],"to":"out","local":{"title":"QUARRY","host":"127.0.0.1","port":21070},"state":null,"tls":{"certificate":null,"key":null,"ca":null,"hostname":true},"filepath":"{00100020}/{0020000D}/{0020000E}/{00080018}.dcm","parallel":1,"allow_several_patients":false,"whole_patients":false,"accept_mismatch":false,"skip_bad_rows":false,"allow_wildcards":false,"map":[],"where":[],"rewrite":[],"pad":[],"date_format":"","series":[],"series_not":[],"min_instances":null,"max_studies":10,"diagnosis":true,"keep_free":1.0,"give_up_after":null,"plan_age":86400.0}');
INSERT INTO "job" VALUES('version','0.1.0');
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
INSERT INTO "requests" VALUES(1,2,X'568D7AD953258A0ED351041442B915B1','[["PatientID", "050000000"], ["AccessionNumber", "0000001800005"]]',NULL,'','["050000000", "0000001800005"]','resolved',NULL,NULL,NULL);
INSERT INTO "requests" VALUES(2,3,X'036F9A3A6BFD37F2075E2481E780A556','[["PatientID", "050000000"], ["AccessionNumber", "0000011800005"]]',NULL,'','["050000000", "0000011800005"]','resolved',NULL,NULL,NULL);
INSERT INTO "requests" VALUES(3,4,X'50835A0F78CC2A00E9D92A0887B31939','[["PatientID", "X"], ["AccessionNumber", "NOBODY"]]',NULL,'','["X", "NOBODY"]','concluded','study_not_found','{"keys": "patient ID and accession"}',NULL);
CREATE TABLE series (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	series_uid TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (task_id, series_uid), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
);
INSERT INTO "series" VALUES(1,1,'2.25.22558074123203808878012596952388706966');
INSERT INTO "series" VALUES(2,2,'2.25.261434058045994283631035350921043867923');
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
	others TEXT, 
	state TEXT NOT NULL, 
	not_before FLOAT, 
	code TEXT, 
	details TEXT, 
	expected INTEGER, 
	stored INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	folder TEXT NOT NULL, 
	proved_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (study_uid, archive, selection)
);
INSERT INTO "tasks" VALUES(1,'DEMO','2.25.337636169081335046009787648637136569571','','050000000','0000001800005','20180221','CT','CT examination',1,2,'ONLINE',NULL,'concluded',NULL,'all_listed_stored','{"instances": 2}',2,2,18196,'050000000/2.25.337636169081335046009787648637136569571',1.79540390306490540506e+09);
INSERT INTO "tasks" VALUES(2,'DEMO','2.25.17164448178668034612529961746041155554','','050000000','0000011800005','20181106','CT','CT examination',1,2,'ONLINE',NULL,'concluded',NULL,'all_listed_stored','{"instances": 2}',2,2,18196,'050000000/2.25.17164448178668034612529961746041155554',1.7954039030835645199e+09);
CREATE TABLE uids (
	id INTEGER NOT NULL, 
	uid TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (uid)
);
INSERT INTO "uids" VALUES(1,'1.2.840.10008.1.2.1');
INSERT INTO "uids" VALUES(2,'1.2.840.10008.5.1.4.1.1.2');
CREATE INDEX requests_by_state ON requests (state, "row");
CREATE INDEX tasks_by_state ON tasks (state, not_before, id);
CREATE INDEX request_tasks_by_task ON request_tasks (task_id, "row");
CREATE INDEX attempts_by_task ON attempts (task_id);
CREATE INDEX requests_by_identity ON requests (identity);
COMMIT;
