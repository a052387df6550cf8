-- Runs once, on an empty volume: a role that owns one database and can do nothing else.
\getenv password POSTGRES_PASSWORD
CREATE ROLE gateway LOGIN PASSWORD :'password';
CREATE DATABASE gateway OWNER gateway;
-- The superuser is whoever may run psql inside the container, and nobody on the network.
ALTER ROLE postgres PASSWORD NULL;
