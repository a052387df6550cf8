CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0009');
CREATE TABLE api_key (
	id TEXT NOT NULL, 
	project_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	scopes TEXT NOT NULL, 
	models TEXT, 
	note TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER, 
	paused_at INTEGER, 
	revoked_at INTEGER, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES project (id)
)
 STRICT

;
CREATE TABLE audit (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at INTEGER NOT NULL, 
	actor TEXT NOT NULL, 
	via TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	"before" TEXT, 
	"after" TEXT, 
	address TEXT
)
 STRICT

;
CREATE TABLE boot (
	id TEXT NOT NULL, 
	base INTEGER NOT NULL, 
	PRIMARY KEY (id)
)
 STRICT

;
CREATE TABLE bucket (
	limit_id TEXT NOT NULL, 
	amount INTEGER NOT NULL, 
	tokens REAL NOT NULL, 
	at INTEGER NOT NULL, 
	wanted_at INTEGER NOT NULL, 
	held INTEGER NOT NULL, 
	PRIMARY KEY (limit_id)
)
 STRICT

;
CREATE TABLE change (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	subject TEXT NOT NULL, 
	at INTEGER NOT NULL
)
 STRICT

;
CREATE TABLE journal (
	id TEXT NOT NULL, 
	number INTEGER, 
	position INTEGER NOT NULL, 
	at INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (number)
)
 STRICT

;
CREATE TABLE key_secret (
	digest TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	hint TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	valid_until INTEGER, last_used_at INTEGER, 
	PRIMARY KEY (digest), 
	FOREIGN KEY(key_id) REFERENCES api_key (id)
)
 STRICT

;
CREATE TABLE lease (
	limit_id TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	held INTEGER NOT NULL, 
	is_quota INTEGER NOT NULL, 
	PRIMARY KEY (limit_id, worker)
)
 WITHOUT ROWID,
 STRICT

;
CREATE TABLE limits (
	scope TEXT NOT NULL, 
	limits TEXT NOT NULL, 
	changed_at INTEGER NOT NULL, 
	PRIMARY KEY (scope)
)
 STRICT

;
CREATE TABLE login (
	digest TEXT NOT NULL, 
	person_id TEXT, 
	key_id TEXT, 
	csrf TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	seen_at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	agent TEXT NOT NULL, 
	PRIMARY KEY (digest)
)
 STRICT

;
CREATE TABLE name (
	number INTEGER NOT NULL, 
	text TEXT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (text)
)
 STRICT

;
CREATE TABLE person (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	role TEXT NOT NULL, 
	password TEXT, 
	created_at INTEGER NOT NULL, 
	disabled_at INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (name)
)
 STRICT

;
CREATE TABLE price (
	model TEXT NOT NULL, 
	since INTEGER NOT NULL, 
	input INTEGER NOT NULL, 
	output INTEGER NOT NULL, 
	cached INTEGER NOT NULL, image INTEGER DEFAULT '0' NOT NULL, audio_second INTEGER DEFAULT '0' NOT NULL, character INTEGER DEFAULT '0' NOT NULL, search INTEGER DEFAULT '0' NOT NULL, cache_write INTEGER, 
	PRIMARY KEY (model, since)
)
 STRICT

;
CREATE TABLE project (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
)
 STRICT

;
CREATE TABLE recorded_text (
	id INTEGER NOT NULL, 
	at INTEGER NOT NULL, 
	ended_at INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	key_id TEXT NOT NULL, 
	request_id TEXT NOT NULL, 
	cut TEXT NOT NULL, 
	asked TEXT NOT NULL, 
	sent TEXT, 
	answered TEXT NOT NULL, 
	PRIMARY KEY (id)
)
 STRICT

;
CREATE TABLE recording (
	key_id TEXT NOT NULL, 
	started_at INTEGER NOT NULL, 
	until INTEGER NOT NULL, 
	started_by TEXT NOT NULL, 
	size INTEGER NOT NULL, 
	PRIMARY KEY (key_id)
)
 STRICT

;
CREATE TABLE repeated (
	"key" TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	answer TEXT NOT NULL, 
	expires_at INTEGER NOT NULL, 
	PRIMARY KEY ("key")
)
 STRICT

;
CREATE TABLE request (
	id INTEGER NOT NULL, 
	request_number INTEGER, 
	cost INTEGER NOT NULL, 
	"key" INTEGER NOT NULL, 
	project INTEGER NOT NULL, 
	model INTEGER, 
	provider INTEGER NOT NULL, 
	dialect INTEGER NOT NULL, 
	tokens_in INTEGER NOT NULL, 
	tokens_out INTEGER NOT NULL, 
	tokens_cached INTEGER NOT NULL, 
	milliseconds INTEGER NOT NULL, 
	first_milliseconds INTEGER, 
	dropped INTEGER NOT NULL, 
	status INTEGER NOT NULL, 
	streamed INTEGER NOT NULL, 
	estimated INTEGER NOT NULL, 
	outcome TEXT, 
	error TEXT, 
	request_id TEXT, 
	asked TEXT, 
	served TEXT, 
	session TEXT, 
	end_user TEXT, 
	passed_over TEXT, action INTEGER, prompt_size INTEGER, prompt_limit INTEGER, prompt_in_tokens INTEGER, shortened INTEGER, waits TEXT, tokens_cache_written INTEGER, unit INTEGER, amount INTEGER, 
	PRIMARY KEY (id)
)
 STRICT

;
CREATE TABLE route (
	name TEXT NOT NULL, 
	targets TEXT NOT NULL, 
	changed_at INTEGER NOT NULL, 
	PRIMARY KEY (name)
)
 STRICT

;
CREATE TABLE spent (
	scope TEXT NOT NULL, 
	day INTEGER NOT NULL, 
	model TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	requests INTEGER NOT NULL, 
	tokens_in INTEGER NOT NULL, 
	tokens_out INTEGER NOT NULL, 
	cost INTEGER NOT NULL, 
	PRIMARY KEY (scope, day, model, provider)
)
 WITHOUT ROWID,
 STRICT

;
CREATE TABLE ticket (
	digest TEXT NOT NULL, 
	person_id TEXT NOT NULL, 
	expires_at INTEGER NOT NULL, 
	PRIMARY KEY (digest)
)
 STRICT

;
CREATE TABLE upstream (
	name TEXT NOT NULL, 
	entry TEXT NOT NULL, 
	secrets TEXT, 
	enabled INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	changed_at INTEGER NOT NULL, 
	PRIMARY KEY (name)
)
 STRICT

;
CREATE TABLE usage (
	grain TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	start INTEGER NOT NULL, 
	model TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	requests INTEGER NOT NULL, 
	tokens_in INTEGER NOT NULL, 
	tokens_out INTEGER NOT NULL, 
	tokens_cached INTEGER NOT NULL, 
	cost INTEGER NOT NULL, 
	milliseconds INTEGER NOT NULL, 
	m0 INTEGER NOT NULL, 
	m1 INTEGER NOT NULL, 
	m2 INTEGER NOT NULL, 
	m3 INTEGER NOT NULL, 
	m4 INTEGER NOT NULL, 
	m5 INTEGER NOT NULL, 
	m6 INTEGER NOT NULL, 
	m7 INTEGER NOT NULL, 
	m8 INTEGER NOT NULL, 
	m9 INTEGER NOT NULL, 
	m10 INTEGER NOT NULL, 
	m11 INTEGER NOT NULL, images INTEGER DEFAULT '0' NOT NULL, audio_seconds INTEGER DEFAULT '0' NOT NULL, characters INTEGER DEFAULT '0' NOT NULL, searches INTEGER DEFAULT '0' NOT NULL, tokens_cache_written INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (grain, key_id, start, model, provider, outcome)
)
 WITHOUT ROWID,
 STRICT

;
CREATE TABLE worker (
	id TEXT NOT NULL, 
	machine TEXT NOT NULL, 
	version TEXT NOT NULL, 
	started_at INTEGER NOT NULL, 
	seen_at INTEGER NOT NULL, 
	beat INTEGER NOT NULL, 
	message INTEGER NOT NULL, 
	PRIMARY KEY (id)
)
 STRICT

;
CREATE UNIQUE INDEX api_key_name ON api_key (project_id, name) WHERE revoked_at IS NULL;
CREATE INDEX ix_key_secret_key_id ON key_secret (key_id);
CREATE INDEX request_key ON request ("key", id);
CREATE INDEX request_trouble ON request (id) WHERE outcome IS NOT NULL;
CREATE INDEX request_error ON request (error, id) WHERE error IS NOT NULL;
CREATE INDEX request_given_id ON request (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX bucket_wanted ON bucket (wanted_at);
CREATE INDEX lease_worker ON lease (worker);
CREATE INDEX audit_subject ON audit (subject, number);
CREATE INDEX login_person ON login (person_id);
CREATE INDEX login_key ON login (key_id);
CREATE INDEX recorded_request_id ON recorded_text (request_id);
CREATE INDEX recorded_key_id ON recorded_text (key_id);
CREATE INDEX recorded_ended_at ON recorded_text (ended_at);
