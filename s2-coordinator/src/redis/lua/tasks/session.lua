-- Sessions: which there are, what each has, and what it was granted.
--
-- The field `session:<n>` has the state below, and then what the session holds, seven bytes each, and the claims that wait as
-- {ticket, request, how many at most, number of the wait, channel}. `sessions` lists them by name, `blocked:<n>` and
-- `resumable:<n>` have what it waits for and may resume, `refused:<n>` what it is not offered until when;
-- `ps:<process>` are the sessions of a process.

local sessions_of, session_count = {}, 0
local changed_sessions = {}
-- What the other parts use of it.
local find_session, save_session, pack_session, number_of, named, check_session, granted_before, remember_request,
  refused_key, skips, refused_until, nudge, back_off, hold_task, let_go, wait_to_claim, stop_waiting_to_claim

do

-- kind, version, blocked, resumable, refused, places of requests, which of the latest is next, which of the others, held,
-- process, name
local SESSION = '>I7I7I4I4I4I4I4I4I4I2I2'
local MOST_REFUSED = 1000
-- How many of the latest requests are remembered, and among how many of those before them one is sought of which nothing is
-- held any more, to make room.
local REQUESTS, LOOK_AT = 64, 4
-- How many fields are read at once.
local FIELDS = 1000

function find_session(n)
  local session = seen[n]
  if session ~= nil then
    return session
  end
  local packed = read('session:' .. int(n))
  session = packed and sessions_of[P] and sessions_of[P][n]
  if packed and not (session and session.packed == packed) then
    session = { n = n, packed = packed, held = {} }
    local held, process, name, place
    session.kind, session.version, session.blocked, session.resumable, session.refused, session.places, session.cursor,
      session.look, held, process, name, place = unpack_bytes(SESSION, packed)
    session.process = sub(packed, place, place + process - 1)
    session.name = sub(packed, place + process, place + process + name - 1)
    place = place + process + name
    for nth = 1, held do
      session.held[nth] = unpack_bytes('>I7', packed, place + (nth - 1) * 7)
    end
    place = place + held * 7
    session.waits = place <= #packed and cmsgpack.unpack(sub(packed, place)) or {}
    session_count = session_count + 1
    if session_count > 20000 then
      sessions_of, session_count = {}, 0
    end
    sessions_of[P] = sessions_of[P] or {}
    sessions_of[P][n] = session
  end
  seen[n] = session or false
  return session or false
end

function save_session(session)
  if not session.touched then
    session.touched = true
    changed_sessions[#changed_sessions + 1] = session
  end
end

function pack_session(session)
  session.version = session.version + 1
  local parts = {}
  for nth, id in ipairs(session.held) do
    parts[nth] = pack('>I7', id)
  end
  session.packed = pack(SESSION, session.kind, session.version, session.blocked, session.resumable, session.refused,
    session.places, session.cursor, session.look, #session.held, #session.process, #session.name) .. session.process ..
    session.name .. table.concat(parts) .. (#session.waits > 0 and cmsgpack.pack(session.waits) or '')
  return session.packed
end

-- The number of the session that goes by a name now.
function number_of(name)
  return tonumber(read('name:' .. name) or 0)
end

function named(name)
  local n = number_of(name)
  return n > 0 and find_session(n)
end

-- The session, if it is still there and nobody has taken its place; or nil and why not.
function check_session(n, name)
  local session = find_session(n)
  if session then
    return session
  end
  local current = number_of(name)
  return nil, { 'stale_session', current > 0 and current or false }
end

local function request_field(session, slot)
  return 'request:' .. int(session.n) .. ':' .. slot
end

-- What a request of a session was granted: tasks and tokens in turn; nothing where that is not known.
function granted_before(session, request)
  if not session.known then
    session.known = {}
    session.slots = {}
    local fields = {}
    for place = 0, session.places - 1 do
      fields[place + 1] = request_field(session, place)
    end
    for first = 1, #fields, FIELDS do
      local values = call('HMGET', P .. 'tasks', unpack(fields, first, at_most(first + FIELDS - 1, #fields)))
      for nth, packed in ipairs(values) do
        if packed then
          local length = string.byte(packed)
          local request = sub(packed, 2, 1 + length)
          session.slots[first + nth - 2], session.known[request] = request, sub(packed, 2 + length)
        end
      end
    end
  end
  return session.known[request]
end

-- Whether something is still held of what the request in a place was granted; `held` are the tasks of the session.
local function is_held(session, place, held)
  local leases = session.known[session.slots[place]]
  for first = 1, #leases, 14 do
    local id, token = unpack_bytes('>I7I7', leases, first)
    local rec = held[id] and find_task(id)
    if rec and holds(rec, token) then
      return true
    end
  end
  return false
end

local function place_request(session, place, request, leases)
  local old = session.slots[place]
  if old then
    session.known[old] = nil
  end
  session.places = at_least(session.places, place + 1)
  session.slots[place], session.known[request] = request, leases
  write(request_field(session, place), string.char(#request) .. request .. leases)
end

-- A place behind those of the latest requests: of one of which nothing is held any more, or a new one.
local function place_behind(session, held)
  local others = session.places - REQUESTS
  for _ = 1, at_most(others, LOOK_AT) do
    local place = REQUESTS + session.look
    session.look = (session.look + 1) % others
    if not is_held(session, place, held) then
      return place
    end
  end
  return session.places
end

-- The latest requests are remembered in turn, and of those before them the ones of which something is still held.
function remember_request(session, request, granted)
  granted_before(session, request)
  local parts, held = {}, {}
  for nth, rec in ipairs(granted) do
    parts[nth] = pack('>I7I7', rec.id, rec.token)
  end
  local place = session.cursor
  local old = session.slots[place]
  if old then
    for _, id in ipairs(session.held) do
      held[id] = true
    end
    if is_held(session, place, held) then
      place_request(session, place_behind(session, held), old, session.known[old])
      session.slots[place] = nil
    end
  end
  place_request(session, place, request, table.concat(parts))
  session.cursor = (place + 1) % REQUESTS
  save_session(session)
end

function refused_key(session)
  return P .. 'refused:' .. int(session.n)
end

-- Tells whether a session refused a task and is not offered it again yet; nothing where it refuses nothing.
function skips(session)
  if session.refused == 0 then
    return nil
  end
  local refused = refused_of[session.n]
  if not refused then
    refused = {}
    for _, name16 in ipairs(call('ZRANGE', refused_key(session), 0, -1)) do
      refused[name16] = true
    end
    refused_of[session.n] = refused
  end
  return function(name16)
    return refused[name16]
  end
end

function refused_until(session, rec)
  return session.refused > 0 and tonumber(call('ZSCORE', refused_key(session), rec.name16) or 0) or 0
end

function nudge(n)
  nudged[#nudged + 1] = n
end

-- A session is not offered a task for a while.
function back_off(session, rec, at)
  refused_of[session.n] = nil
  local key, name = refused_key(session), rec.name16
  if call('ZADD', key, at, name) == 1 then
    session.refused = session.refused + 1
  end
  if session.refused > MOST_REFUSED then
    -- Of those that come back first, the first is forgotten for it.
    for _, other in ipairs(call('ZRANGE', key, 0, 1)) do
      if other ~= name and session.refused > MOST_REFUSED then
        call('ZREM', key, other)
        session.refused = session.refused - 1
        disarm_timer(DUE.offer .. other .. id16(session.n))
        nudge(session.n)
      end
    end
  end
  arm_timer(DUE.offer .. name .. id16(session.n), at)
  save_session(session)
end

function hold_task(session, id)
  session.held[#session.held + 1] = id
  save_session(session)
end

function let_go(session, id)
  for nth, each in ipairs(session.held) do
    if each == id then
      table.remove(session.held, nth)
      break
    end
  end
  save_session(session)
  if #session.held == 0 and T.waiting > 0 and is_any_above() then
    nudge(session.n)
  end
end

-- Begins to wait, under the number of a wait of the calling process, or goes on waiting.
function wait_to_claim(session, request, max, wait)
  for _, each in ipairs(session.waits) do
    if each[2] == request then
      each[3], each[4], each[5] = max, wait, CHANNEL
      save_session(session)
      return
    end
  end
  local ticket = number()
  line_up(Q.kinds[session.kind], ticket, session.n)
  table.insert(session.waits, { ticket, request, max, wait, CHANNEL })
  save_session(session)
end

function stop_waiting_to_claim(session, request)
  for nth, each in ipairs(session.waits) do
    if each[2] == request then
      leave_line(Q.kinds[session.kind], each[1], session.n)
      table.remove(session.waits, nth)
      save_session(session)
      return
    end
  end
end

end
