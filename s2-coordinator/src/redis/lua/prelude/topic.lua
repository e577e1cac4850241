-- Topics: the stream of events, idempotency keys, retention.
--
-- `t:<topic>` holds the state below, `k:<topic>` what was published under which key, `ka:<topic>` keys by age, `tg:<topic>` the
-- groups by name, each with its incarnation and its floor. `e:<topic>` is the stream of events. What was published together
-- lies together, up to 4 KiB in one entry: under the position of the first, fields `e`, one for each event: attributes as JSON,
-- a line feed, data. Before them `b`, the bytes of all events before, where there are several or one is heavy, or the position
-- is a multiple of 32.

local EVENT_BYTES = 96
local KEY_BYTES = 160
-- What is remembered of a key: the id and the fingerprint of the event, its position, and when it was published.
local KEY = '>c16c32I7I7'

local STRIDE = 32
local HEAVY_BYTES = 4096
-- The most that lies together, unless it is one event.
local ENTRY_EVENTS = 64
-- About as much as one step reads or answers.
local STEP_BYTES = 4194304
local TOPIC = '>I7I7I7I7I7I7I7I7I7B'

-- Groups of the topic that wait: `waiting` lists {incarnation, offer}. The offer says what the longest waiter may have of the next
-- events: {consumer, ticket, how many, timeout, channel, 1 if others wait, too}, or false. So who publishes them hands them out
-- without looking at the group, and leaves a `grant` with it.
local function unpack_topic(name, packed)
  local first, next_, total, trimmed, dead, keys, due, oldest, oldest_key, tails, place = struct.unpack(TOPIC, packed)
  return {
    name = name, key = P .. 't:' .. name, stream = P .. 'e:' .. name, packed = packed, first = first, next = next_,
    total = total, trimmed = trimmed, dead = dead, keys = keys, due = due, oldest = oldest, oldest_key = oldest_key,
    tails = tails, waiting = place <= #packed and cmsgpack.unpack(string.sub(packed, place)) or {},
  }
end

local function find_topic(name)
  local topic = topics[name]
  if topic == nil then
    local packed = call('GET', P .. 't:' .. name)
    topic = packed and known.topics[name]
    if packed and not (topic and topic.packed == packed) then
      topic = unpack_topic(name, packed)
      known.topics[name], remembered = topic, remembered + 1
    end
    topic = topic or false
    topics[name] = topic
  end
  return topic
end

local function save_topic(topic)
  local packed = struct.pack(TOPIC, topic.first, topic.next, topic.total, topic.trimmed, topic.dead, topic.keys, topic.due,
    topic.oldest, topic.oldest_key, topic.tails)
  if #topic.waiting > 0 then
    packed = packed .. cmsgpack.pack(topic.waiting)
  end
  if packed ~= topic.packed then
    topic.packed = packed
    call('SET', topic.key, packed)
  end
end

-- Where in the fields of an entry the text of its first event is.
local function first_text(entry)
  return entry[2][1] == 'b' and 4 or 2
end

local function count_events(entry)
  return entry[4] or (#entry[2] - first_text(entry)) / 2 + 1
end

-- The bytes of all events before an entry, where it says so.
local function bytes_before(entry)
  return entry[2][1] == 'b' and tonumber(entry[2][2]) or nil
end

-- The bytes of the events of an entry, of the first `count` if that is given.
local function weigh(entry, count)
  local fields, from = entry[2], first_text(entry)
  local bytes = 0
  for place = from, count and from + count * 2 - 2 or #fields, 2 do
    bytes = bytes + #fields[place] + EVENT_BYTES
  end
  return bytes
end

-- The entry with the event at a position, or nil.
local function entry_at(topic, position)
  local entry = call('XREVRANGE', topic.stream, int(position), '-', 'COUNT', 1)[1]
  return entry and position < id_position(entry) + count_events(entry) and entry or nil
end

-- Reads from the stream where it begins, what it holds and how old it is, after somebody else has changed it.
local function measure(topic)
  local known_first, read = topic.first < topic.next and topic.first or 0, 0
  topic.trimmed, topic.total, topic.oldest, topic.first = 0, 0, NEVER, topic.next
  local entry = call('XRANGE', topic.stream, '-', '+', 'COUNT', 1)[1]
  if not entry then
    return
  end
  topic.first, topic.oldest = at_least(id_position(entry), known_first), recorded(entry)
  -- From either end to the next entry that says how many bytes came before.
  local bytes = -weigh(entry, at_most(topic.first - id_position(entry), count_events(entry)))
  while entry and not bytes_before(entry) and read < STRIDE do
    bytes, read = bytes + weigh(entry), read + 1
    entry = call('XRANGE', topic.stream, int(id_position(entry) + 1), '+', 'COUNT', 1)[1]
  end
  topic.trimmed = at_least((entry and bytes_before(entry) or bytes) - bytes, 0)
  entry, bytes, read = call('XREVRANGE', topic.stream, '+', '-', 'COUNT', 1)[1], 0, 0
  topic.next = at_least(topic.next, id_position(entry) + count_events(entry))
  while entry and not bytes_before(entry) and read < STRIDE do
    bytes, read = bytes + weigh(entry), read + 1
    entry = call('XREVRANGE', topic.stream, int(id_position(entry) - 1), '-', 'COUNT', 1)[1]
  end
  topic.total = (entry and bytes_before(entry) and bytes_before(entry) + weigh(entry) or topic.trimmed) + bytes
end

-- The topic, made where there is none. One that has lost its state goes on after everything that is known of it.
local function make_topic(name)
  local topic = find_topic(name)
  if topic then
    return topic
  end
  local ended = tonumber(call('HGET', P .. 'ended', name) or M.highest)
  call('HDEL', P .. 'ended', name)
  topic = {
    name = name, key = P .. 't:' .. name, stream = P .. 'e:' .. name, first = ended + 1, next = ended + 1, total = 0,
    trimmed = 0, dead = 0, keys = 0, due = NEVER, oldest = NEVER, oldest_key = NEVER,
    tails = call('EXISTS', P .. 'tails:' .. name), waiting = {},
  }
  for _, group in ipairs(call('HVALS', P .. 'tg:' .. name)) do
    local incarnation, floor = string.match(group, '^(%d+) (%d+)')
    if call('HSTRLEN', P .. 'g:' .. incarnation, 'queue') > 0 then
      table.insert(topic.waiting, { tonumber(incarnation), false })
    end
    topic.next, topic.due = at_least(topic.next, tonumber(floor) + 1), 0
  end
  if call('EXISTS', P .. 'e:' .. name) == 1 then
    topic.due = 0
    measure(topic)
  end
  if topic.due == 0 then
    arm('t:' .. name, 0)
  end
  M.topics, M.changed = M.topics + 1, true
  topics[name], known.topics[name], remembered = topic, topic, remembered + 1
  return topic
end

-- The topic, if there is one, be it without its state.
local function known_topic(name)
  return find_topic(name) or call('EXISTS', P .. 'tg:' .. name, P .. 'e:' .. name) > 0 and make_topic(name)
end

-- The groups of a topic by incarnation: {incarnation, name, floor}.
local function groups_of(topic)
  local listed, groups = call('HGETALL', P .. 'tg:' .. topic.name), {}
  for nth = 1, #listed, 2 do
    local incarnation, floor = string.match(listed[nth + 1], '^(%d+) (%d+)')
    groups[#groups + 1] = { tonumber(incarnation), listed[nth], tonumber(floor) }
  end
  table.sort(groups, function(a, b) return a[1] < b[1] end)
  return groups
end

local function arm_topic(topic, at)
  if at < topic.due then
    topic.due = at
    arm('t:' .. topic.name, at)
  end
end

-- The entries with the events from a position on, which is retained: at most about `limit` events and `STEP_BYTES`, but one in
-- any case. `average` is what an event weighs; since some weigh more, pages begin small and grow.
local function entries_from(key, from, limit, average)
  local found, events, bytes, each, most = {}, 0, 0, 1, average <= 2048 and limit or 4
  local function add(entry)
    each = count_events(entry)
    local past = id_position(entry) + each
    if past > from then
      bytes = bytes + weigh(entry)
      if bytes > STEP_BYTES and #found > 0 then
        return false
      end
      found[#found + 1], events, from = entry, events + past - from, past
    end
    return true
  end
  -- The first may lie in the middle of an entry.
  local page = call('XREVRANGE', key, int(from), '-', 'COUNT', 1)
  while page do
    for _, entry in ipairs(page) do
      if not add(entry) then
        return found
      end
    end
    if events >= limit then
      break
    end
    local asked = at_most(math.ceil((limit - events) / each), most)
    page, most = call('XRANGE', key, int(from), '+', 'COUNT', asked), most * 2
    if #page == 0 then
      break
    end
  end
  return found
end

local function average_of(topic)
  return (topic.total - topic.trimmed) / at_least(topic.next - topic.first, 1)
end

-- Forgets keys that are older than the window, oldest first.
local function expire_keys(topic)
  while topic.oldest_key + C.window <= now and budget > 0 do
    local packed = call('LPOP', P .. 'ka:' .. topic.name)
    local batch = packed and cmsgpack.unpack(packed) or {}
    for nth = 2, #batch do
      local used = call('HGET', P .. 'k:' .. topic.name, batch[nth])
      if used and select(4, struct.unpack(KEY, used)) == batch[1] then
        call('HDEL', P .. 'k:' .. topic.name, batch[nth])
        topic.keys = topic.keys - #batch[nth] - KEY_BYTES
      end
      budget = budget - 1
    end
    local oldest = call('LINDEX', P .. 'ka:' .. topic.name, 0)
    topic.oldest_key = oldest and cmsgpack.unpack(oldest)[1] or NEVER
  end
end

-- Bytes of all events before a position.
local function bytes_until(topic, position)
  if position <= topic.first then
    return topic.trimmed
  elseif position >= topic.next then
    return topic.total
  end
  -- One that is heavy says so itself, so what is read on the way back is light.
  local entry = entry_at(topic, position)
  local bytes = entry and weigh(entry, position - id_position(entry)) or 0
  while entry and not bytes_before(entry) do
    position = id_position(entry) - 1
    if position < topic.first then
      return topic.trimmed + bytes
    end
    entry = entry_at(topic, position)
    bytes = bytes + (entry and weigh(entry) or 0)
  end
  return entry and bytes_before(entry) + bytes or topic.trimmed + bytes
end

-- Bytes of the events that follow a position.
local function bytes_after(topic, position)
  return topic.total - bytes_until(topic, position + 1)
end
