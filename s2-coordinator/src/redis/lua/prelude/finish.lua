-- The end of a step: what was changed is written, and the answer is remembered where it is asked for.

local function save()
  tasks.save()
  for _, group in pairs(groups) do
    if group then
      if group.queue ~= '' and topics[group.topic] then
        offer_next(topics[group.topic], group)
      end
      local fields, packed = {}, pack_group(group)
      if packed ~= group.packed then
        fields, group.packed = { 'state', packed }, packed
      end
      if #group.gaps > 0 then
        fields[#fields + 1], fields[#fields + 2] = 'gaps', cmsgpack.pack(group.gaps)
      end
      for field, value in pairs(group.changed) do
        if not value then
          call('HDEL', group.key, field)
        else
          if string.sub(field, 1, 1) == 'm' then
            value = pack_member(value)
          elseif type(value) == 'table' then
            value = cmsgpack.pack(value)
          end
          fields[#fields + 1], fields[#fields + 2] = field, value
        end
        if #fields >= 1000 then
          call('HSET', group.key, unpack(fields))
          fields = {}
        end
      end
      if #fields > 0 then
        call('HSET', group.key, unpack(fields))
      end
      if group.floor ~= group.recorded then
        call('HSET', P .. 'tg:' .. group.topic, group.name, int(group.incarnation) .. ' ' .. int(group.floor))
      end
    end
  end
  for _, topic in pairs(topics) do
    if topic then
      save_topic(topic)
    end
  end
  save_meta()
  finished = true
end

-- Makes a verb one step.
local function step(verb)
  return function(keys, args)
    local wrong = begin(keys, args)
    if wrong then
      return wrong
    end
    if not catch_up() then
      save()
      return { 'again' }
    end
    local lane, request = string.match(ARGV[3], '^(%d+) (%d+)$')
    local before
    if lane then
      request = tonumber(request)
      before = call('HGET', P .. 'q:' .. CALLER, lane)
      local last = before and struct.unpack('>I7', before) or 0
      if last >= request then
        save()
        return last == request and cmsgpack.unpack(string.sub(before, 8)) or { 'superseded' }
      end
    end
    local answer = verb()
    for _, topic in ipairs(published) do
      announce(topic)
    end
    if lane then
      call('HSET', P .. 'q:' .. CALLER, lane, struct.pack('>I7', request) .. cmsgpack.pack(answer))
      if not before then
        keep_answers()
      end
    end
    save()
    return answer
  end
end
