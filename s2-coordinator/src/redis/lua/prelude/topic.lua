-- Topics: the stream of events, idempotency keys, retention.
--
-- `t:<topic>` holds the state below, `e:<topic>` the stream of events (id `<position>-0`; fields `e` attributes, `d` data,
-- `t` when recorded, and, where the position is a multiple of 32 or the data heavy, the bytes of all events before it),
-- `k:<topic>` what was published under which key, `ka:<topic>` keys by age, `tg:<topic>` the groups by name, each with its
-- incarnation and its floor.

local EVENT_BYTES = 96
local KEY_BYTES = 160
local KEY = '>c32c16I7I7'

local STRIDE = 32
local HEAVY_BYTES = 4096
-- About as much as one step reads or answers.
local STEP_BYTES = 4194304
local TOPIC = '>I7I7I7I7I7I7I7I7I7B'

-- Groups of the topic that wait: `waiting` lists {incarnation, the member that waits longest}.
local function find_topic(name)
  local topic = topics[name]
  if topic == nil then
    local packed = call('GET', P .. 't:' .. name)
    topic = packed and { name = name, packed = packed } or false
    if topic then
      local place
      topic.first, topic.next, topic.total, topic.trimmed, topic.dead, topic.keys, topic.due, topic.oldest,
        topic.oldest_key, topic.tails, place = struct.unpack(TOPIC, packed)
      topic.waiting = place <= #packed and cmsgpack.unpack(string.sub(packed, place)) or {}
    end
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
    call('SET', P .. 't:' .. topic.name, packed)
  end
end

local function id_position(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

-- When an event was recorded.
local function recorded(entry)
  return tonumber(string.match(entry[2][6], '^%d+'))
end

-- The bytes of all events before one, where it says so.
local function bytes_before(entry)
  return tonumber(string.match(entry[2][6], ' (%d+)$'))
end

local function weigh(entry)
  return #entry[2][2] + #entry[2][4] + EVENT_BYTES
end

-- The bytes of events from one position up to before another, which is near.
local function weigh_range(topic, from, past)
  local bytes = 0
  if from < past then
    for _, entry in ipairs(call('XRANGE', P .. 'e:' .. topic.name, int(from), int(past - 1))) do
      bytes = bytes + weigh(entry)
    end
  end
  return bytes
end

-- Reads from the stream where it begins, what it holds and how old it is, after somebody else has changed it.
local function measure(topic)
  local stream = P .. 'e:' .. topic.name
  local first = call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  topic.trimmed, topic.total, topic.oldest, topic.first = 0, 0, NEVER, topic.next
  if not first then
    return
  end
  local last = id_position(call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1])
  topic.first, topic.next, topic.oldest = id_position(first), at_least(topic.next, last + 1), recorded(first)
  local low, high = math.ceil(topic.first / STRIDE) * STRIDE, math.floor(last / STRIDE) * STRIDE
  local one, other = call('XRANGE', stream, int(low), int(low))[1], call('XRANGE', stream, int(high), int(high))[1]
  if one and other and low <= high then
    topic.trimmed = at_least(bytes_before(one) - weigh_range(topic, topic.first, low), 0)
    topic.total = bytes_before(other) + weigh_range(topic, high, last + 1)
  else
    topic.total = weigh_range(topic, topic.first, last + 1)
  end
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
    name = name, first = ended + 1, next = ended + 1, total = 0, trimmed = 0, dead = 0, keys = 0, due = NEVER,
    oldest = NEVER, oldest_key = NEVER, tails = call('EXISTS', P .. 'tails:' .. name), waiting = {},
  }
  for _, group in ipairs(call('HVALS', P .. 'tg:' .. name)) do
    local incarnation, floor = string.match(group, '^(%d+) (%d+)')
    local head = call('ZRANGE', P .. 'w:' .. incarnation, 0, 0)[1]
    if head then
      table.insert(topic.waiting, { tonumber(incarnation), tonumber(head) })
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
  topics[name] = topic
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

-- The entry at a position, or nil.
local function entry_at(topic, position)
  return call('XRANGE', P .. 'e:' .. topic.name, int(position), int(position))[1]
end

-- Entries from a position on, which is retained: at most `limit` and about `STEP_BYTES`, but one in any case. `average` is
-- what one weighs; since some weigh more, pages begin small and grow.
local function entries_from(key, from, limit, average)
  local found, bytes, most = {}, 0, average <= 2048 and limit or 4
  while #found < limit and bytes < STEP_BYTES do
    local page = call('XRANGE', key, int(from), '+', 'COUNT', at_most(limit - #found, most))
    for _, entry in ipairs(page) do
      bytes = bytes + #entry[2][2] + #entry[2][4]
      if bytes > STEP_BYTES and #found > 0 then
        return found
      end
      found[#found + 1] = entry
    end
    if #page == 0 then
      break
    end
    from, most = id_position(page[#page]) + 1, most * 2
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
  local bytes = 0
  while entry and not bytes_before(entry) do
    position = position - 1
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
