-- Publishing: everything is decided before anything is written.

-- Drops settled history that exceeds the retention, an eighth of it at a time, and says so in the journal.
local function trim(topic)
  local bytes = topic.total - topic.trimmed
  local empty = topic.first >= topic.next
  local too_much = bytes > C.topic_bytes
  local too_old = C.topic_age and not empty and topic.oldest + C.topic_age <= now
  if C.topic_age and not empty and not too_old then
    arm_topic(topic, topic.oldest + C.topic_age)
  end
  if not too_much and not too_old then
    return
  end
  local safe = topic.next - 1
  for _, listed in ipairs(groups_of(topic)) do
    local group = find_group(listed[1])
    if group and not group.expired then
      safe = at_most(safe, group.floor)
    end
  end
  local eighth = math.floor(C.topic_bytes / 8)
  too_much = too_much and bytes - bytes_after(topic, safe) >= eighth
  local room = too_much and C.topic_bytes - eighth or NEVER
  local youth = too_old and C.topic_age - math.floor(C.topic_age / 8) or NEVER
  -- Bytes and ages are in order: the first event that stays is found by halving.
  local low, high = topic.first, at_least(safe + 1, topic.first)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = entry_at(topic, middle)
    local at, before = 0, topic.trimmed
    if entry then
      at, before = recorded(entry)
    end
    if topic.total - before > room or now - at >= youth then
      low = middle + 1
    else
      high = middle
    end
  end
  if low == topic.first then
    return
  end
  local dropped, entry = low - topic.first, low < topic.next and entry_at(topic, low)
  topic.first, topic.oldest, topic.trimmed = low, NEVER, topic.total
  if entry then
    topic.oldest, topic.trimmed = recorded(entry)
  end
  call('XTRIM', P .. 'e:' .. topic.name, 'MINID', '=', int(low) .. '-0')
  for _, listed in ipairs(groups_of(topic)) do
    local group = find_group(listed[1])
    if group then
      forget_before(topic, group)
    end
  end
  journal {
    component = 'bus', operation = 'trim', subject = topic.name, params = { 'through', low - 1, 'events', dropped },
  }
end

-- An error when `more` bytes would exceed what a topic may hold that nobody may drop.
local function check_backlog(topic, name, more)
  if not topic then
    return more > C.backlog_bytes and { 'full', name, 0 } or nil
  end
  local others = topic.dead + topic.keys
  if topic.total - topic.trimmed + others + more <= C.backlog_bytes then
    return nil
  end
  expire_keys(topic)
  local safe = topic.next - 1
  for _, listed in ipairs(groups_of(topic)) do
    local group = find_group(listed[1])
    if group and not group.expired then
      safe = at_most(safe, group.floor)
    end
  end
  local held = bytes_after(topic, safe) + topic.dead + topic.keys
  return held + more > C.backlog_bytes and { 'full', name, held } or nil
end

-- How many topics of a batch are not there yet, and whether there is room for them.
local function check_room(names)
  local seen, fresh = {}, 0
  for _, name in ipairs(names) do
    if not seen[name] and not find_topic(name) then
      fresh = fresh + 1
    end
    seen[name] = true
  end
  if fresh > 0 and M.topics + fresh > C.topics then
    return { 'topics', M.topics + fresh }
  end
end

-- What is to become of each event of a batch: true to write it, {position, id} of the original for a duplicate, or the
-- number of the event of this batch that says the same. Or nil and an error.
local function plan(events)
  local names = {}
  for nth, event in ipairs(events) do
    names[nth] = event[1]
  end
  local wrong = check_room(names)
  if wrong then
    return nil, wrong
  end
  local plans, seen, adds, order = {}, {}, {}, {}
  for nth, event in ipairs(events) do
    local name, key, said = event[1], event[2], event[3]
    local topic, what = find_topic(name), true
    if key ~= '' then
      local used = topic and call('HGET', P .. 'k:' .. name, key)
      local before, id, position, at
      if used then
        before, id, position, at = struct.unpack(KEY, used)
      end
      local first = seen[name .. '\0' .. key]
      if used and now - at < C.window then
        if before ~= said then
          return nil, { 'conflict', name, key, id }
        end
        what = { position, id }
      elseif first then
        if events[first][3] ~= said then
          return nil, { 'contradiction', key }
        end
        what = first
      else
        seen[name .. '\0' .. key] = nth
        -- Used anew after its window: the older use no longer counts.
        event.replaces = used and true
      end
    end
    if what == true then
      if not adds[name] then
        order[#order + 1] = name
      end
      adds[name] = (adds[name] or 0) + #event[6] + EVENT_BYTES
    end
    plans[nth] = what
  end
  for _, name in ipairs(order) do
    wrong = check_backlog(find_topic(name), name, adds[name])
    if wrong then
      return nil, wrong
    end
  end
  return plans
end

-- Publishes a batch, all of it or nothing: {topic, key, fingerprint, id, attributes, data} for each. Answers with a
-- position for each event that was written, {position, id} for each that was there already; or nil and an error.
local function publish(events)
  local plans, wrong = plan(events)
  if not plans then
    return nil, wrong
  end
  local answers, nth = {}, 1
  while nth <= #events do
    local topic = make_topic(events[nth][1])
    local stream, recorded_at = P .. 'e:' .. topic.name, int(now) .. ' '
    local used, ages = {}, { now }
    while nth <= #events and events[nth][1] == topic.name do
      local event, what = events[nth], plans[nth]
      if what == true then
        local position = topic.next
        call('XADD', stream, int(position) .. '-0', 'e', event[5], 'd', event[6], 't',
          recorded_at .. int(topic.total))
        if topic.first == position then
          topic.oldest = now
        end
        topic.next, topic.total = position + 1, topic.total + #event[5] + #event[6] + EVENT_BYTES
        if event[2] ~= '' then
          used[#used + 1], used[#used + 2] = event[2], struct.pack(KEY, event[3], event[4], position, now)
          ages[#ages + 1] = event[2]
          topic.keys = topic.keys + (event.replaces and 0 or #event[2] + KEY_BYTES)
        end
        answers[nth] = position
      elseif type(what) == 'table' then
        answers[nth] = what
      else
        local first = answers[what]
        answers[nth] = type(first) == 'table' and first or { first, events[what][4] }
      end
      nth = nth + 1
    end
    if #used > 0 then
      call('HSET', P .. 'k:' .. topic.name, unpack(used))
      call('RPUSH', P .. 'ka:' .. topic.name, cmsgpack.pack(ages))
      topic.oldest_key = at_most(topic.oldest_key, now)
      arm_topic(topic, now + C.window + math.floor(C.window / 8))
    end
    if C.topic_age then
      arm_topic(topic, now + C.topic_age)
    end
    for _, incarnation in ipairs({ unpack(topic.waiting) }) do
      local group = find_group(incarnation)
      if group then
        serve(topic, group)
      end
    end
    if topic.tails then
      topic.tails = false
      wake_tails(topic.name)
    end
    trim(topic)
  end
  return answers
end

-- Reads the events of a batch from the arguments of a script, and where they end.
local function read_events(from)
  local events = {}
  local count = tonumber(ARGV[from])
  for nth = 1, count do
    local place = from + (nth - 1) * 6
    events[nth] = { ARGV[place + 1], ARGV[place + 2], ARGV[place + 3], ARGV[place + 4], ARGV[place + 5], ARGV[place + 6] }
  end
  return events, from + 1 + count * 6
end

-- Raises an escalation, or counts it where one with its key is pending: key, reason, payload, severity, trace. Answers
-- with its number and whether it was pending; or nil and an error.
local function escalate(new)
  local pending = call('HGET', P .. 'escalation:keys', new.key)
  if pending then
    local escalation = cmsgpack.unpack(call('HGET', P .. 'escalation', pending))
    escalation[7] = escalation[7] + 1
    call('HSET', P .. 'escalation', pending, cmsgpack.pack(escalation))
    return { tonumber(pending), 1 }
  end
  local count = call('ZCARD', P .. 'inbox')
  if count >= C.escalations then
    return nil, { 'escalations', count + 1 }
  end
  M.escalation = M.escalation + 1
  local id = M.escalation
  journal {
    component = 'inbox', operation = 'escalate', subject = new.key, severity = new.severity, trace = new.trace,
    params = { 'id', id, 'reason', new.reason },
  }
  call('HSET', P .. 'escalation:keys', new.key, int(id))
  call('ZADD', P .. 'inbox', id, int(id))
  call('HSET', P .. 'escalation', int(id),
    cmsgpack.pack({ new.key, new.reason, new.payload, new.severity, new.trace or '', now, 1 }))
  return { id, 0 }
end
